"""What a recipe expects at a place, read from its JSON schema and put into words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_TYPE_WORDS = {
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "a mapping of keys",
}


class SchemaNode(NamedTuple):
    """One node of a JSON schema, with the schema's definitions to resolve references."""

    node: dict[str, Any]
    definitions: dict[str, Any]

    def names(self, kind: object = None) -> list[str]:
        """Keys of a section, in their order; `kind` chooses among the alternatives.

        Empty where no mapping is expected.
        """
        return list(self._resolved(kind).get("properties", {}))

    def choices(self) -> list[str]:
        """Values of `kind` that tell the alternatives of this place apart, if there are any."""
        for node in self._alternatives():
            if "discriminator" in node:
                return list(node["discriminator"]["mapping"])
        return []

    def description(self) -> str:
        return str(self.node.get("description", ""))

    def may_hold_secret(self) -> bool:
        """Whether it, or anything inside, is marked as `writeOnly`: errors do not repeat it."""
        if any(node.get("writeOnly") for node in self._alternatives()):
            return True
        inside = (self.child(name) for name in self.names())
        return any(place is not None and place.may_hold_secret() for place in inside)

    def child(self, part: str | int, kind: object = None) -> SchemaNode | None:
        """The place of key or index `part`; None where the schema has none."""
        node = self._resolved(kind)
        if isinstance(part, str):
            # Keys that the user chooses, such as the names of variants.
            named = (n for n in self._alternatives() if _is_mapping(n))
            free = next((n["additionalProperties"] for n in named), None)
            found = node.get("properties", {}).get(part, free)
        else:
            found = next((_element(n, part) for n in self._alternatives() if _is_list(n)), None)
        return None if found is None else SchemaNode(found, self.definitions)

    def words(self) -> str:
        """What is allowed here: type, range and choices."""
        constants = [n["const"] for n in self._alternatives() if "const" in n]
        parts = [SchemaNode(n, self.definitions)._words() for n in self._alternatives()]
        # Several constants read as one list of choices.
        if len(constants) > 1:
            rest = [w for w, n in zip(parts, self._alternatives(), strict=True) if "const" not in n]
            parts = [_one_of(constants), *rest]
        return " or ".join(dict.fromkeys(parts))

    def _words(self) -> str:
        node = self.node
        if "const" in node:
            return json.dumps(node["const"])
        if "enum" in node:
            return _one_of(node["enum"])
        if "discriminator" in node:
            return f"a mapping whose kind is {_one_of(node['discriminator']['mapping'])}"
        if node.get("type") == "array":
            return self._list_words()
        if node.get("type") in ("integer", "number"):
            noun = "a whole number" if node["type"] == "integer" else "a number"
            return " ".join([noun, *_range(node)])
        if "pattern" in node:
            return f"text that matches {node['pattern']}"
        return _TYPE_WORDS.get(str(node.get("type")), "a value")

    def _list_words(self) -> str:
        if "prefixItems" in self.node:
            items = [SchemaNode(n, self.definitions).words() for n in self.node["prefixItems"]]
            return f"a list of {len(items)}: " + ", ".join(items)
        words = SchemaNode(self.node.get("items", {}), self.definitions).words()
        least = self.node.get("minItems", 0)
        return f"a list of {f'at least {least}: ' if least else ''}{words}"

    def _alternatives(self) -> list[dict[str, Any]]:
        nodes = self.node.get("anyOf", [self.node])
        return [self._dereferenced(node) for node in nodes]

    def _resolved(self, kind: object = None) -> dict[str, Any]:
        """The one alternative that is a mapping (chosen by `kind`), or an empty node."""
        for node in self._alternatives():
            if "discriminator" in node:
                reference = node["discriminator"]["mapping"].get(kind)
                return self._dereferenced({"$ref": reference}) if reference else {}
            if "properties" in node:
                return node
        return {}

    def _dereferenced(self, node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in node:
            return node
        name = node["$ref"].removeprefix("#/$defs/")
        found: dict[str, Any] = self.definitions[name]
        return found


def root(schema: dict[str, Any]) -> SchemaNode:
    """The outermost place of a model's JSON schema."""
    return SchemaNode(schema, schema.get("$defs", {}))


def descend(place: SchemaNode, data: object, path: tuple[str | int, ...]) -> SchemaNode | None:
    """Follow `path` through schema and data together; data's `kind` chooses alternatives."""
    current: SchemaNode | None = place
    for part in path:
        if current is None:
            return None
        kind = data.get("kind") if isinstance(data, dict) else None
        current = current.child(part, kind if isinstance(kind, str) else None)
        data = _value_at(data, part)
    return current


def sections_with(place: SchemaNode, key: str, prefix: str = "") -> Iterator[str]:
    """Dotted names of the sections that know `key`; alternatives by kind are not entered."""
    for name in place.names():
        child = place.child(name)
        if child is not None and key in child.names():
            yield f"{prefix}{name}"
        if child is not None:
            yield from sections_with(child, key, f"{prefix}{name}.")


def all_keys(place: SchemaNode, prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys; alternatives by kind are not entered."""
    for name in place.names():
        yield f"{prefix}{name}"
        child = place.child(name)
        if child is not None:
            yield from all_keys(child, f"{prefix}{name}.")


def _value_at(data: object, part: str | int) -> object:
    if isinstance(data, dict):
        return data.get(part)
    if isinstance(data, list) and isinstance(part, int) and part < len(data):
        return data[part]
    return None


def _is_list(node: dict[str, Any]) -> bool:
    return node.get("type") == "array"


def _is_mapping(node: dict[str, Any]) -> bool:
    """Whether its keys are the user's own names."""
    return isinstance(node.get("additionalProperties"), dict)


def _element(node: dict[str, Any], index: int) -> dict[str, Any] | None:
    """The node of a list's element: each its own in a list of fixed length."""
    fixed = node.get("prefixItems", [])
    return fixed[index] if index < len(fixed) else node.get("items")


def _one_of(values: Iterable[object]) -> str:
    return "one of " + ", ".join(str(value) for value in values)


def _range(node: dict[str, Any]) -> list[str]:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {_number(node[name])}" for name, sign in signs.items() if name in node]
    return [" and ".join(bounds)] if bounds else []


def _number(bound: float) -> str:
    return f"{bound:,.0f}" if bound >= 10_000 and bound == int(bound) else f"{bound:.10g}"

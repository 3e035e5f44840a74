"""YAML to plain Python values and back, without YAML 1.1's surprises.

Numbers and booleans follow YAML 1.2 (`3e-4` is a number, `no` and `2024-01-01` are text), a key
that stands twice is an error, and what is not JSON-like (tags, references that repeat much) is
refused before anything is made of it.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import yaml

from distillspec.errors import DistillSpecError
from distillspec.text.foreign import visible

_DEEPEST = 32  # levels of nesting
_MOST_CHARACTERS = 1_000_000  # of a file or an override
_MOST_VALUES = 20_000  # of a file, what aliases repeat counted as often as it stands

_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]+$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_RESOLVERS = (
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("null", _NULL, ["~", "n", "N", ""]),
    ("merge", re.compile("^<<$"), ["<"]),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  (a table of the class in PyYAML as well)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        # A tag could make an object of another class; `!` alone only forces text.
        if tag not in (None, "!"):
            raise yaml.constructor.ConstructorError(
                None, None, f"the tag {tag} has no place here", event.start_mark
            )
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        # PyYAML would silently take the last of equal keys.
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' stands twice", key.start_mark
                    )
                seen.add(key.value)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node))  # 010 is ten, not eight


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = {}  # noqa: RUF012  (a table of the class in PyYAML as well)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        # False: lists are indented below their key.
        super().increase_indent(flow, False)


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if visible(text) != text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)


def parse(text: str, *, where: str) -> Any:
    """`text` as None, bool, int, float, str, list or dict with text keys.

    Args:
        text: YAML of a file or an override.
        where: The file or argument, for errors.

    Raises:
        DistillSpecError: It is not YAML of plain values; `where` has the line.
    """
    if len(text) > _MOST_CHARACTERS:
        raise DistillSpecError(
            f"{len(text):,} characters are too many for settings",
            where=where,
            fix=f"give at most {_MOST_CHARACTERS:,}; data belong into files of their own",
        )
    try:
        value = _plain_values(text, where)
    except yaml.reader.ReaderError as error:
        raise DistillSpecError(
            f"not text: it holds the character {error.character!r}",
            where=f"{where}, line {_line(text, error.position)}",
            fix="give a YAML file in UTF-8, without control characters",
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DistillSpecError(
            f"not YAML: {getattr(error, 'problem', None) or 'it cannot be read'}",
            where=f"{where}{line}",
            fix="correct this line; a file may hold text, numbers, true/false, lists and mappings",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DistillSpecError(
            "not YAML that can be read as plain values: nested too deep, or a number of too many "
            "digits",
            where=where,
            fix="nest the values less deeply, or shorten the number",
        ) from error
    _refuse_foreign(value, where)
    return value


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _plain_values(text: str, where: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        # Before construction: a few aliases can stand for billions of values.
        if _extent(node, {}, 0, where).values > _MOST_VALUES:
            raise DistillSpecError(
                f"more than {_MOST_VALUES:,} values, with all that aliases repeat",
                where=where,
                fix="write less, or use fewer aliases (*name)",
            )
        return loader.construct_document(node)
    finally:
        loader.dispose()


class _Extent(NamedTuple):
    """The size of a node.

    Attributes:
        values: Number of values, with aliases expanded.
        levels: Levels of nesting.
    """

    values: int
    levels: int


def _extent(node: yaml.Node, known: dict[int, _Extent], depth: int, where: str) -> _Extent:
    """Measure a node; `known` holds the nodes that were measured, so that the time is linear."""
    found = known.get(id(node))
    if depth + (found.levels if found else 1) > _DEEPEST:
        raise DistillSpecError(
            f"nested deeper than {_DEEPEST} levels", where=where, fix="remove references to itself"
        )
    if found is None:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        inner = [_extent(part, known, depth + 1, where) for part in parts]
        levels = 1 + max((part.levels for part in inner), default=0)
        found = _Extent(1 + sum(part.values for part in inner), levels)
        # Only now, so that a node which holds itself comes to the deepest level.
        known[id(node)] = found
    return found


def write(value: Any) -> str:
    """Plain values as YAML text in block style, keys in their given order."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )
    # All that is hidden stands in double quotes, where its escape is the same character.
    return visible(text)


def _refuse_foreign(value: Any, where: str) -> None:
    """DistillSpecError for what YAML can hold and JSON, or a file's name, cannot."""
    if isinstance(value, float) and not math.isfinite(value):
        raise DistillSpecError(
            f"the number {value} is not finite", where=where, fix="give a finite number, or null"
        )
    if isinstance(value, str):
        _refuse_unwritable(value, where)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise DistillSpecError(
                    f"the key {key!r} is not text", where=where, fix="put the key in quotes"
                )
            _refuse_unwritable(key, where)
            _refuse_foreign(item, where)
    elif isinstance(value, list):
        for item in value:
            _refuse_foreign(item, where)


def _refuse_unwritable(text: str, where: str) -> None:
    if unwritable := _UNWRITABLE.search(text):
        raise DistillSpecError(
            f"a text holds the character U+{ord(unwritable[0]):04X}, which no file can be named by",
            where=where,
            fix="remove it",
        )

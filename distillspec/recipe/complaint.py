"""pydantic's validation errors as our own: key, value, what is allowed, the nearest key."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from distillspec.errors import DistillSpecError
from distillspec.recipe.expectation import SchemaNode, all_keys, descend, sections_with
from distillspec.recipe.rule import RefusedError
from distillspec.text.nearest import nearest
from distillspec.text.secret import names_a_secret

Path = tuple[str | int, ...]

_REMOVED = {  # keys of earlier versions
    "bootstrap": "intervals are Student's t over source documents, and nothing is resampled",
}


class _Fault(NamedTuple):
    """One fault that pydantic found.

    Attributes:
        path: Keys that lead to it.
        type: Of pydantic's error.
        message: Of pydantic's error.
        refusal: Of a broken rule, which brings its own words.
    """

    path: Path
    type: str
    message: str
    refusal: RefusedError | None


class _Words(NamedTuple):
    """What is printed of a fault.

    Attributes:
        what: What is wrong.
        keys: The section, or the keys in conflict.
        fix: What to do.
        why: The reason; None where it is plain.
    """

    what: str
    keys: tuple[Path, ...]
    fix: str
    why: str | None = None


def complaint(
    error: ValidationError,
    data: object,
    schema: SchemaNode,
    where: str,
    overridden: dict[Path, str],
) -> DistillSpecError:
    """The error to show for `data` that does not fit `schema`.

    Of several faults the first is printed in full, and the others are named. An unknown key comes
    before a missing key, which it probably stands for.

    Args:
        error: What pydantic raised.
        data: The values that were checked.
        schema: The outermost node of the JSON schema that they must fit.
        where: The file's name.
        overridden: The command line's `section.key=value` that set a path, by path.
    """
    # 1. Keep one fault per path and type: each member of a union reports the same fault.
    found = (
        _Fault(_path(item["loc"], data), item["type"], item["msg"], _refusal(item))
        for item in error.errors(include_url=False)
    )
    faults = list({(fault.path, fault.type): fault for fault in found}.values())
    # 2. Leave out faults that are the consequence of another.
    meant = [fault for fault in faults if not _is_of_another_form(fault, faults, data)]
    # 3. Explain the first fault, and name the others.
    ordered = sorted(meant, key=lambda fault: fault.type != "extra_forbidden")
    first = ordered[0]
    words = _tell(first, data, schema)
    fix = words.fix
    others = sorted({dotted(f.path) for f in ordered if not _related(f.path, first.path)})
    if others:
        fix += f" (faults too: {', '.join(others)})"
    place = _where(first, words.keys, where, overridden, schema)
    return DistillSpecError(words.what, where=place, fix=fix, why=words.why)


def dotted(path: Path) -> str:
    """('methods', 0, 'name') -> 'methods[0].name'."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _path(location: tuple[int | str, ...], data: object) -> Path:
    """pydantic's location without the names of union members that it puts in between."""
    path: list[str | int] = []
    for part in location:
        if isinstance(data, dict):
            if part not in data and (part == data.get("kind") or _names_a_form(part)):
                continue
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        else:
            continue
        path.append(part)
    return tuple(path)


def _names_a_form(part: int | str) -> bool:
    """Whether pydantic named a member of `text or a mapping with a kind` by it."""
    return isinstance(part, str) and (part == "str" or part.startswith("tagged-union["))


def _is_of_another_form(fault: _Fault, faults: Sequence[_Fault], data: object) -> bool:
    """Whether a mapping is blamed for being no text, and another fault names what it lacks."""
    if fault.type != "string_type" or not isinstance(_value(data, fault.path), dict):
        return False
    return any(
        inner.path[: len(fault.path)] == fault.path for inner in faults if inner is not fault
    )


def _related(first: Path, second: Path) -> bool:
    """Whether one path leads to the other: then both faults are the same."""
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def _tell(fault: _Fault, data: object, schema: SchemaNode) -> _Words:
    path = fault.path
    if fault.type == "extra_forbidden":
        return _unknown_key(path, data, schema)
    if fault.type == "union_tag_not_found":
        # pydantic names the section; what is missing is its `kind`.
        path, fault = (*path, "kind"), fault._replace(type="missing")
        kinds = _at(schema, data, path[:-1]).choices()
        fix = f"add `kind:`, one of {', '.join(kinds)}"
        return _Words(f"missing key '{dotted(path)}'", (path[:-1],), fix)
    if fault.type == "union_tag_invalid":
        return _unknown_kind(path, data, schema)
    if fault.type == "missing" and path and isinstance(path[-1], str):
        place = _at(schema, data, path)
        meaning = f" ({place.description()})" if place.description() else ""
        return _Words(
            f"missing key '{dotted(path)}'",
            (path[:-1],),
            f"add `{path[-1]}:` {place.words()}{meaning}",
        )
    if fault.refusal is not None:
        keys = tuple((*path, *_parts_of(key)) for key in fault.refusal.keys)
        return _Words(fault.refusal.what, keys or (path,), fault.refusal.fix, fault.refusal.why)
    if fault.type == "missing":  # an element of a list of fixed length
        path = path[:-1]
    return _wrong_value(path, data, schema)


def _parts_of(key: str) -> Path:
    """The names of a key, and the places in its lists."""
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def _unknown_key(path: Path, data: object, schema: SchemaNode) -> _Words:
    section, key = path[:-1], str(path[-1])
    if reason := _REMOVED.get(dotted(path)):
        return _Words(f"unknown key '{key}'", (section,), f"delete it: {reason}")
    known = _at(schema, data, section).names(_value(data, (*section, "kind")))
    guess = nearest(key, known)
    # Nearest first: a key of this section, of another one, then the list of keys.
    elsewhere = [name for name in sections_with(schema, key) if name != dotted(section)]
    if guess is not None:
        fix = f"did you mean '{guess}'?"
    elif elsewhere:
        fix = f"'{key}' belongs under '{elsewhere[0]}'"
    elif meant := _nearest_elsewhere(key, dotted(section), schema):
        fix = f"did you mean {' or '.join(repr(name) for name in meant)}?"
    else:
        fix = f"the keys here are {', '.join(known)}"
    return _Words(f"unknown key '{key}'", (section,), fix)


def _nearest_elsewhere(key: str, section: str, schema: SchemaNode) -> list[str]:
    """Dotted names of the nearest key of other sections, those inside `section` before others."""
    names = list(all_keys(schema))
    guess = nearest(key, sorted({name.rpartition(".")[2] for name in names}))
    matches = [name for name in names if name.rpartition(".")[2] == guess]
    inside = [name for name in matches if name.startswith(f"{section}.")]
    return (inside or matches)[:3]


def _unknown_kind(path: Path, data: object, schema: SchemaNode) -> _Words:
    kinds = _at(schema, data, path).choices()
    given = _value(data, (*path, "kind"))
    guess = nearest(str(given), kinds)
    what = f"'{dotted((*path, 'kind'))}' must be one of {', '.join(kinds)}, not {_shown(given)}"
    return _Words(what, (path,), f"did you mean '{guess}'?" if guess else "choose one of these")


def _wrong_value(path: Path, data: object, schema: SchemaNode) -> _Words:
    place = _at(schema, data, path)
    given = _value(data, path)
    secret = isinstance(given, str | dict) and place.may_hold_secret()
    shown = "the given one (not repeated here: it may be a secret)" if secret else _shown(given)
    what = f"'{dotted(path)}' must be {place.words()}, not {shown}"
    if not path:
        what = f"this is not a mapping of keys but {_shown(given)}"
    fix = "give such a value"
    if isinstance(given, str) and not secret:
        guess = nearest(given, place.words().removeprefix("one of ").split(", "))
        fix = f"did you mean '{guess}'?" if guess else fix
    if place.description():
        fix += f" ({place.description()})"
    return _Words(what, (path[:-1],), fix)


def _at(schema: SchemaNode, data: object, path: Path) -> SchemaNode:
    return descend(schema, data, path) or SchemaNode({}, {})


def _value(data: object, path: Path) -> Any:
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _where(
    fault: _Fault,
    keys: tuple[Path, ...],
    where: str,
    overridden: dict[Path, str],
    schema: SchemaNode,
) -> str:
    """The file and its keys, with the overrides that set any of them."""
    named = ", ".join(dotted(key) for key in keys) or "top level"
    if fault.refusal is None:
        for path, text in overridden.items():
            if fault.path[: len(path)] == path:
                return f"override '{_override(path, text, fault, schema)}' of {where}"
        return f"{where}: {named}"
    setting = [
        f"override '{_override(path, text, fault, schema)}'"
        for path, text in overridden.items()
        if any(_related(path, key) for key in keys)
    ]
    return f"{', '.join([where, *setting])}: {named}"


def _refusal(item: ErrorDetails) -> RefusedError | None:
    error = item.get("ctx", {}).get("error")
    return error if isinstance(error, RefusedError) else None


def _override(path: Path, text: str, fault: _Fault, schema: SchemaNode) -> str:
    """As it was typed, or without its value: a key that nobody knows may hold a secret."""
    place = descend(schema, None, path)
    is_known = place is not None and fault.type != "extra_forbidden"
    may_be_secret = place is not None and place.may_hold_secret()
    words = re.split(r"[^\w.-]+", text)
    if is_known and not may_be_secret and not any(names_a_secret(word) for word in words if word):
        return text
    return f"{dotted(path)}=..."


def _without_values(value: object) -> object:
    """What of a value may be repeated: of a mapping its keys, and of its values only `kind`."""
    if isinstance(value, dict):
        return {key: item if key == "kind" else "..." for key, item in value.items()}
    return [_without_values(item) for item in value] if isinstance(value, list) else value


def _shown(value: object) -> str:
    text = json.dumps(_without_values(value), ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Plain values (of JSON) as records: checked against type hints, with the place of what differs."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

_Form = TypeVar("_Form")
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    list: "a list",
    dict: "a mapping",
}


class MistypedError(ValueError):
    """A value of another type; its text names the place."""


class TypedReader(NamedTuple):
    """How records are read.

    Attributes:
        null_is_nan: Whether null stands for a float that does not exist.
        absent: Values of fields, by their name, that records of earlier versions did not have.
    """

    null_is_nan: bool = False
    absent: Mapping[str, Any] = {}


_STRICT = TypedReader()


def typed(form: type[_Form] | Any, value: Any, reading: TypedReader = _STRICT) -> _Form:
    """`value` as a `form`.

    Args:
        form: int, float, str, bool, None, Any, Literal, a union; list[X], tuple[X, ...],
            tuple[X, Y], dict[str, X] or dict[int, X]; a dataclass or a NamedTuple, whose fields are
            the keys of a mapping. One with a default may be missing; an unknown key is an error.
        value: What `json.loads` gives.
        reading: What is taken besides.

    Raises:
        MistypedError: with the place of the first value of another type.
    """
    return cast("_Form", _convert(form, value, "", reading))


def _convert(form: Any, value: Any, place: str, how: TypedReader) -> Any:
    if form is Any or form is object:
        return value
    if form is float:
        return _float(value, place, how)
    if form in (int, str, bool, NoneType, None):
        kind = NoneType if form is None else form
        # Not isinstance, because True is an int.
        if type(value) is not kind:
            raise _mistyped(_WORDS[kind], value, place)
        return value
    origin, inner = get_origin(form), get_args(form)
    if origin in (UnionType, Union):
        return _member(inner, value, place, how)
    if origin is Literal:
        # Types are compared as well, because 1 == True == 1.0.
        if value not in inner or type(value) not in map(type, inner):
            raise _mistyped(f"one of {', '.join(map(str, inner))}", value, place)
        return value
    if form is dict or origin in (dict, Mapping):
        return _mapping(inner or (str, Any), value, place, how)
    if form in (list, tuple) or origin in (list, tuple, Sequence):
        return _sequence(origin or form, inner or (Any,), value, place, how)
    return _record(form, value, place, how)


def _float(value: Any, place: str, how: TypedReader) -> float:
    if value is None and how.null_is_nan:
        return math.nan
    if type(value) not in (int, float):
        raise _mistyped("a number", value, place)
    try:
        return float(value)
    except OverflowError:
        raise _mistyped("a number of that size", "a larger one", place) from None


def _member(forms: Sequence[Any], value: Any, place: str, how: TypedReader) -> Any:
    """As the first form that takes the value; of one that is null or X, X says what is wrong."""
    if value is None and NoneType in forms:
        return None
    others = [form for form in forms if form is not NoneType]
    for form in others[:-1]:
        try:
            return _convert(form, value, place, how)
        except MistypedError:
            continue
    return _convert(others[-1], value, place, how)


def _mapping(inner: Sequence[Any], value: Any, place: str, how: TypedReader) -> dict[Any, Any]:
    if type(value) is not dict:
        raise _mistyped("a mapping", value, place)
    key_form, item_form = inner
    found = {}
    for key, item in value.items():
        if key_form is int and not key.removeprefix("-").isdecimal():
            raise _mistyped("a whole number", key, f"{place}, a key")
        name = int(key) if key_form is int else key
        found[name] = _convert(item_form, item, f"{place}.{key}", how)
    return found


def _sequence(origin: Any, inner: Sequence[Any], value: Any, place: str, how: TypedReader) -> Any:
    if type(value) is not list:
        raise _mistyped("a list", value, place)
    is_fixed = origin is tuple and Ellipsis not in inner
    forms = list(inner) if is_fixed else [inner[0]] * len(value)
    if len(forms) != len(value):
        raise _mistyped(f"a list of {len(forms)}", f"one of {len(value)}", place)
    items = zip(forms, value, strict=True)
    found = [_convert(form, one, f"{place}[{i}]", how) for i, (form, one) in enumerate(items)]
    return tuple(found) if origin is tuple else found


def _record(form: Any, value: Any, place: str, how: TypedReader) -> Any:
    if type(value) is list and not is_dataclass(form):  # JSON writes a named tuple as a list
        hints, _ = _fields(form)
        return form(*_sequence(tuple, tuple(hints.values()), value, place, how))
    if type(value) is not dict:
        raise _mistyped("a mapping", value, place)
    hints, optional = _fields(form)
    # The values of the record replace those for earlier versions.
    value = {**{name: how.absent[name] for name in hints if name in how.absent}, **value}
    for name in hints:
        if name not in value and name not in optional:
            raise MistypedError(f"'{_name(place, name)}' is missing")
    for name in value:
        if name not in hints:
            raise MistypedError(f"'{_name(place, name)}' is not known")
    return form(
        **{n: _convert(hints[n], value[n], f"{place}.{n}", how) for n in hints if n in value}
    )


@functools.cache
def _fields(form: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Types of the fields of a record, and the names of those that have a default."""
    hints = get_type_hints(form)
    if is_dataclass(form):
        found = fields(form)
        # A field has a default unless both of its forms are missing.
        has_default = (f for f in found if not f.default is f.default_factory is MISSING)
        return {f.name: hints[f.name] for f in found}, frozenset(f.name for f in has_default)
    return {name: hints[name] for name in form._fields}, frozenset(form._field_defaults)


def _mistyped(wanted: str, value: Any, place: str) -> MistypedError:
    given = value if isinstance(value, str) and value.startswith(("one of", "a larger")) else None
    given = given or _WORDS.get(type(value), "something else")
    return MistypedError(f"{_shown(place)} must be {wanted}, not {given}")


def _shown(place: str) -> str:
    return f"'{place.removeprefix('.')}'" if place else "its content"


def _name(place: str, name: str) -> str:
    return f"{place}.{name}".removeprefix(".")

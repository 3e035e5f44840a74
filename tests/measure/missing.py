"""Records whose numbers do not exist, and how a text that shows one is found."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from distillspec.measure.stats.intervals import Interval

_Record = TypeVar("_Record")

NO_NUMBER = re.compile(r"(?<![a-zA-Z])[-+]?(nan|inf)(?![a-zA-Z])")
_SETTINGS = ("temperature", "confidence")


def without(record: _Record, missing: float, *, bounds_alone: bool) -> _Record:
    """`record` with `missing` for each measured number of it, or for the bounds alone."""
    assert is_dataclass(record) and not isinstance(record, type)
    changes: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Interval):
            estimate = value.value if bounds_alone else missing
            changes[field.name] = Interval(estimate, missing, missing)
        elif isinstance(value, float) and not bounds_alone and field.name not in _SETTINGS:
            changes[field.name] = missing
        elif isinstance(value, list) and value and is_dataclass(value[0]):
            changes[field.name] = [without(x, missing, bounds_alone=bounds_alone) for x in value]
    return replace(record, **changes)

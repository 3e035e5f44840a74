"""summary.json, written from the records of `measure.summary` and read back into them."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from distillspec import atomic
from distillspec.errors import DistillSpecError
from distillspec.measure.summary import Summary

_BEFORE: dict[str, Any] = {  # what stands for fields that summaries did not always have
    "documents": 0,
    "text_documents": 0,
    "standard_methods": ["standard"],
    "alpha_argmax": None,
    "alpha_argmax_low": None,
    "alpha_argmax_high": None,
}
_OLD = (
    "An earlier version wrote this summary: its intervals are over prompts, which are too narrow "
    "where several come from one document. `evaluate` sums the same rows up again."
)


def write_summary(summary: Summary, path: Path) -> None:
    """Atomically; a number that does not exist (nan) is written as null."""
    atomic.write_json(path, _plain(summary))


def read_summary(path: Path) -> Summary:
    """The records of a summary.json; DistillSpecError if it is not one."""
    try:
        found = _record(Summary, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DistillSpecError(
            f"no summary of an evaluation can be read: {error}",
            where=str(path),
            mend="run `python -m distillspec evaluate` again; it goes on from rows.jsonl",
        ) from error
    assert isinstance(found, Summary)
    return found if found.documents else _over_prompts(found)


def _over_prompts(summary: Summary) -> Summary:
    """A summary that was written before documents were kept: what it claimed is not repeated."""
    untested = [replace(one, verdict="not tested") for one in summary.comparisons]
    return replace(summary, comparisons=untested, notes=[*summary.notes, _OLD])


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _record(kind: Any, value: Any) -> Any:
    """The inverse of `_plain`, led by the type hints."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        found = {**{f.name: _BEFORE[f.name] for f in fields(kind) if f.name in _BEFORE}, **value}
        return kind(**{f.name: _record(hints[f.name], found[f.name]) for f in fields(kind)})
    if get_origin(kind) is list:
        return [_record(get_args(kind)[0], item) for item in value]
    if get_origin(kind) is dict:
        return {key: _record(get_args(kind)[1], item) for key, item in value.items()}
    if kind is float:
        return float("nan") if value is None else float(value)
    if get_origin(kind) is UnionType and value is not None:
        return _record(next(part for part in get_args(kind) if part is not NoneType), value)
    return value

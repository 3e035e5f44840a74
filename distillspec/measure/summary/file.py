"""summary.json, written from the records of `measure.summary` and read back into them."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.findings import served_cautions
from distillspec.measure.summary.records import Summary
from distillspec.runtime import atomic
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.typed import TypedReader

SCHEMA_VERSION = 1
_BEFORE: dict[str, Any] = {  # what stands for fields that summaries did not always have
    "documents": 0,
    "text_documents": 0,
    "noise_floor": None,
    "cautions": [],
    "standard_methods": ["standard"],
    "method": "standard",
    "alpha_argmax": [None, None, None],
}
_LARGEST = 1e15
_LONGEST_NAME = 200
_OLD = (
    "An earlier version wrote this summary: its intervals are over prompts, which are too narrow "
    "where several come from one document. `evaluate` sums the same rows up again."
)


def write_summary(summary: Summary, path: Path) -> None:
    """Atomically; a number that does not exist (nan) is written as null."""
    atomic.write_json(path, {"schema_version": SCHEMA_VERSION, **without_nan(summary)})


def read_summary(path: Path) -> Summary:
    """The records of a summary.json; DistillSpecError if it is not one."""
    fix = "run `python -m distillspec evaluate` again; it goes on from rows.jsonl"
    kept = BoundedText(path, "the summary of an evaluation", fix)
    values = read_json(kept, dict[str, Any])
    if values.pop("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise kept.fault("another version of distillspec wrote it", "schema_version")
    _join_intervals(values)
    reading = TypedReader(null_is_nan=True, absent=_BEFORE)
    found = kept.record(Summary, values, reading=reading)
    _check(found, kept)
    if not found.documents:
        return _over_prompts(found)
    if not found.cautions:  # an earlier version kept none; those of its numbers can be found
        said = served_cautions(
            found.cells,
            found.baseline,
            found.greedy_divergences,
            found.documents,
            found.standard_methods,
        )
        found = replace(found, cautions=said)
    return found


def _check(summary: Summary, kept: BoundedText) -> None:
    """Whether the parts fit together, and can be drawn."""
    plain = {one.temperature for one in summary.baseline}
    without = [at for at in summary.temperatures() if at not in plain]
    if without:
        raise kept.fault(f"its baseline has no temperature {without[0]:g}")
    waiting: list[Any] = [without_nan(summary)]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, int | float) and abs(one) > _LARGEST:
            raise kept.fault(f"it holds a number beyond {_LARGEST:g}")
    names = [*summary.drafts(), *summary.methods()]
    if max(map(len, names), default=0) > _LONGEST_NAME:
        raise kept.fault(f"a draft or a method has a name of more than {_LONGEST_NAME} characters")


def _over_prompts(summary: Summary) -> Summary:
    """A summary that was written before documents were kept: what it claimed is not repeated."""
    untested = [replace(one, verdict="not tested") for one in summary.comparisons]
    notes, cautions = [*summary.notes, _OLD], [*summary.cautions, _OLD]
    return replace(summary, comparisons=untested, notes=notes, cautions=cautions)


def _interval_keys(name: str) -> tuple[str, str, str]:
    """The three keys that an interval has in the file: estimate, lower and upper bound."""
    if name == "difference":
        return name, "low", "high"
    return name, f"{name}_low", f"{name}_high"


def _join_intervals(values: dict[str, Any]) -> None:
    """Put the three keys of each interval in a record under the name of its field."""
    for section, hint in get_type_hints(Summary).items():
        record = next(filter(is_dataclass, get_args(hint)), None)
        if record is None:
            continue
        names = [name for name, form in get_type_hints(record).items() if form is Interval]
        items = values.get(section)
        for item in items if isinstance(items, list) else [items]:
            for name in names if isinstance(item, dict) else ():
                keys = zip(Interval._fields, _interval_keys(name), strict=True)
                parts = {part: item.pop(key) for part, key in keys if key in item}
                if parts:
                    item[name] = parts


def without_nan(value: Any) -> Any:
    """For JSON: records as dicts, and null for a number that does not exist (nan, infinite)."""
    if is_dataclass(value) and not isinstance(value, type):
        values: dict[str, Any] = {}
        for field in fields(value):
            item = getattr(value, field.name)
            parts = {field.name: item}
            if isinstance(item, Interval):
                parts = dict(zip(_interval_keys(field.name), item, strict=True))
            values |= {name: without_nan(part) for name, part in parts.items()}
        return values
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

"""Writing and reading summary.json. An interval `x` has the keys x, x_low and x_high."""

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
_BEFORE: dict[str, Any] = {  # values of fields that older summaries lack
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
    "An earlier version wrote this summary: its intervals are over prompts, and too narrow if "
    "several prompts come from one document. `distillspec evaluate` makes a new one from its rows."
)


def write_summary(summary: Summary, path: Path) -> None:
    """Write the summary atomically.

    A number that does not exist (nan) becomes null, and so does a bound beyond what `read_summary`
    accepts: an interval over two documents can be that wide.
    """
    values = _without_extremes(without_nan(summary))
    atomic.write_json(path, {"schema_version": SCHEMA_VERSION, **values})


def read_summary(path: Path) -> Summary:
    """The records of a summary.json, also of an earlier version.

    Raises:
        DistillSpecError: The file is not a summary, or of a later version.
    """
    fix = "run `distillspec evaluate` again; it uses the rows in rows.jsonl"
    file = BoundedText(path, "the summary of an evaluation", fix)
    # 1. The version comes first, because a later one may have other fields.
    values = read_json(file, dict[str, Any])
    if values.pop("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise file.fault("another version of distillspec wrote it", "schema_version")
    # 2. Records, with values for fields that earlier versions did not have.
    _join_intervals(values)
    reading = TypedReader(null_is_nan=True, absent=_BEFORE)
    summary = file.record(Summary, values, reading=reading)
    # 3. Checks, and what earlier versions did not compute.
    _check(summary, file)
    if not summary.documents:
        return _over_prompts(summary)
    if not summary.cautions:  # written by an earlier version without cautions
        cautions = served_cautions(
            summary.cells,
            summary.baseline,
            summary.greedy_divergences,
            summary.documents,
            summary.standard_methods,
        )
        summary = replace(summary, cautions=cautions)
    return summary


def _check(summary: Summary, file: BoundedText) -> None:
    """Raise if the parts do not fit together, or cannot be drawn."""
    plain = {item.temperature for item in summary.baseline}
    without = [at for at in summary.temperatures() if at not in plain]
    if without:
        raise file.fault(f"its baseline has no temperature {without[0]:g}")
    # Any number in the summary may be drawn, so all of them are checked.
    waiting: list[Any] = [without_nan(summary)]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, int | float) and abs(item) > _LARGEST:
            raise file.fault(f"it holds a number beyond {_LARGEST:g}")
    names = [*summary.drafts(), *summary.methods()]
    if max(map(len, names), default=0) > _LONGEST_NAME:
        raise file.fault(f"a draft or a method has a name of more than {_LONGEST_NAME} characters")


def _over_prompts(summary: Summary) -> Summary:
    """A summary from before documents were recorded, without its verdicts."""
    untested = [replace(comparison, verdict="not tested") for comparison in summary.comparisons]
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
        # The record of a section is X in `list[X]` and in `X | None`.
        record = next(filter(is_dataclass, get_args(hint)), None)
        if record is None:
            continue
        names = [name for name, form in get_type_hints(record).items() if form is Interval]
        items: Any = values.get(section)
        for item in items if isinstance(items, list) else [items]:
            for name in names if isinstance(item, dict) else ():
                keys = zip(Interval._fields, _interval_keys(name), strict=True)
                parts = {part: item.pop(key) for part, key in keys if key in item}
                if parts:
                    item[name] = parts


def without_nan(value: Any) -> Any:
    """Values for JSON: records as dicts, and null for a number that is nan or infinite."""
    # is_dataclass is also true for the class itself.
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


def _without_extremes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_extremes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_extremes(item) for item in value]
    return None if isinstance(value, float) and abs(value) > _LARGEST else value

"""Tables of a benchmark: as Markdown, and as a JSON file that docs/results.py reads.

A table is a list of rows; a row is its columns' titles with their values: words, numbers and
intervals. The title has the unit: `tokens/s`, `more, %`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.file import without_nan
from distillspec.runtime import atomic, provenance
from distillspec.text.numbers import bracketed, number

Value = str | int | float | None | Interval
Row = Mapping[str, Value]


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables here, too")


def write(
    bench: str, arguments: argparse.Namespace, tables: Mapping[str, Sequence[Row]], documents: int
) -> None:
    """Write the file that `--json` names; without that option, nothing.

    Args:
        bench: Name of the script.
        arguments: Its command line, which is kept as the settings.
        tables: By title, such as `T = 1`.
        documents: Source documents that the intervals are over; 0 where there are none.
    """
    path: Path | None = arguments.json
    if path is None:
        return
    settings = {key: _setting(value) for key, value in vars(arguments).items() if key != "json"}
    # Where the file went is no part of how its tables came about.
    command = list(sys.orig_argv)
    if "--json" in command:
        at = command.index("--json")
        del command[at : at + 2]
    now = provenance.gather(command)
    content = {
        "bench": bench,
        "environment": {**asdict(now), "threads": torch.get_num_threads()},
        "settings": settings,
        "documents": documents,
        "tables": {title: [_plain(row) for row in rows] for title, rows in tables.items()},
    }
    atomic.write_json(path, without_nan(content))


def _setting(value: Any) -> Any:
    """As JSON can hold it: paths become words."""
    if isinstance(value, list):
        return [_setting(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def percent(share: Interval | None) -> Interval | None:
    return None if share is None else Interval(*(100.0 * bound for bound in share))


def _plain(row: Row) -> dict[str, object]:
    return {
        title: value._asdict() if isinstance(value, Interval) else value
        for title, value in row.items()
    }


def markdown(rows: Sequence[Row]) -> str:
    """A table; its columns are those of the first row."""
    titles = list(rows[0])
    lines = [titles, ["---"] * len(titles)]
    lines += [[cell(row[title], title) for title in titles] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(value: Value, title: str) -> str:
    """A value with three digits or so; percentages with one decimal."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int):
        return f"{value:,}"
    estimate = value.value if isinstance(value, Interval) else value
    large = abs(estimate)
    decimals = 0 if large >= 100 else 1 if large >= 10 or title.endswith("%") else 2
    form = f",.{3 if large < 1 and decimals == 2 else decimals}f"
    if isinstance(value, Interval):
        return f"{number(estimate, form)} {bracketed(value.low, value.high, form)}"
    return number(estimate, form)

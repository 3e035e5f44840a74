"""The files of eval/results/ as records: evaluations, comparisons and tables of benchmarks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.file import read_summary
from distillspec.measure.summary.records import Summary
from distillspec.measure.summary.variants_file import ComparisonRound, read_round
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.typed import TypedReader

RESULTS = Path(__file__).parents[1] / "eval" / "results"
Cell = Interval | str | int | float | None


class BenchTables(NamedTuple):
    """What `eval/bench/result_file.py` writes. documents: 0 where the script has none."""

    bench: str
    environment: dict[str, Any]
    settings: dict[str, Any]
    documents: int
    tables: dict[str, list[dict[str, Cell]]]


class Kept(NamedTuple):
    """A file of results. name: without suffix."""

    name: str
    content: Summary | ComparisonRound | BenchTables

    @property
    def environment(self) -> dict[str, Any]:
        return self.content.environment

    @property
    def command(self) -> str:
        """As it is typed in a checkout."""
        return typed_command(self.environment["command"])

    @property
    def date(self) -> str:
        if isinstance(self.content, Summary):
            return self.content.created[:10]
        return str(self.environment["started"])[:10]


def typed_command(words: list[str]) -> str:
    """Without the interpreter, which is another on each machine."""
    rest = list(words[1:])
    if rest[:2] == ["-m", "distillspec"]:
        rest[:2] = ["distillspec"]
    return shlex.join(rest)


def read_results(folder: Path = RESULTS) -> dict[str, Kept]:
    """By name."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}


def _read(path: Path) -> Kept:
    file = BoundedText(path, "this file of results", "write it with eval/keep_result.py")
    keys = read_json(file, dict[str, Any]).keys()
    if "cells" in keys:
        return Kept(path.stem, read_summary(path))
    if "round" in keys:
        return Kept(path.stem, read_round(path))
    return Kept(path.stem, read_json(file, BenchTables, TypedReader(null_is_nan=True)))

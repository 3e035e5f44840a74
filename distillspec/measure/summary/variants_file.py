"""Writing and reading the tables of a comparison's round: first.json and finals.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.file import without_nan
from distillspec.measure.summary.variants import VariantStanding
from distillspec.runtime import atomic
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.typed import TypedReader


class RoundTable(NamedTuple):
    """The standings on one kind of prompts.

    Attributes:
        kind: Of prompts.
        texts: Texts of the target that all variants are measured on.
        documents: Source documents of these texts; intervals are over documents and runs.
    """

    kind: str
    texts: int
    documents: int
    standings: list[VariantStanding]


class ComparisonRound(NamedTuple):
    """A round of a comparison.

    Attributes:
        comparison: Its name.
        round: `first` or `finals`.
        minutes: Training of each run.
        against: The baseline of the differences.
        plan: The comparison as it was resolved.
        environment: Command, commit, versions and machine.
    """

    comparison: str
    round: str
    minutes: float
    seeds: list[int]
    temperature: float
    gamma: int
    against: str
    confidence: float
    tables: list[RoundTable]
    plan: dict[str, Any]
    environment: dict[str, Any]


def write_round(result: ComparisonRound, path: Path) -> None:
    """Write the round atomically; a number that does not exist becomes null."""
    tables = [
        {**table._asdict(), "standings": [_plain(one) for one in table.standings]}
        for table in result.tables
    ]
    atomic.write_json(path, without_nan({**result._asdict(), "tables": tables}))


def _plain(standing: VariantStanding) -> dict[str, Any]:
    return {
        name: value._asdict() if isinstance(value, Interval) else value
        for name, value in standing._asdict().items()
    }


def read_round(path: Path) -> ComparisonRound:
    """What `write_round` wrote.

    Raises:
        DistillSpecError: The file is not the result of a comparison.
    """
    fix = "run `distillspec compare` again; it uses the runs that it has measured"
    file = BoundedText(path, "the result of a comparison", fix)
    return read_json(file, ComparisonRound, TypedReader(null_is_nan=True))

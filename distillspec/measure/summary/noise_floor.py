"""The same draft timed twice: how far two equal drafts lie apart in this evaluation (A/A)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Sums, by_document
from distillspec.measure.summary.records import DISTILLED, NoiseFloor
from distillspec.measure.timed.bench import BenchColumn
from distillspec.measure.timed.rows import CellRow
from distillspec.recipe.suite import Suite
from distillspec.text.numbers import with_interval


def timed_again(suite: Suite, drafts: Iterable[str]) -> BenchColumn | None:
    """The cell that is timed a second time; None where the suite wants none, or none is standard.

    Of the distilled draft, or the last one, at the last gamma; at `suite.again_at` alone.
    """
    of_suite = [name for name in drafts if name in suite.drafts]
    standard = [method for method in suite.methods if method.is_standard and method.model is None]
    if not suite.noise_floor or not of_suite or not standard:
        return None
    draft = DISTILLED if DISTILLED in of_suite else of_suite[-1]
    return BenchColumn(draft, standard[0], suite.of(standard[0])[-1], again=True)


def noise_floor(rows: Sequence[CellRow], confidence: float) -> NoiseFloor | None:
    """The second time over the first, paired by document; None where nothing was timed twice.

    Args:
        rows: All of an evaluation, those of the second time included.
        confidence: Of the intervals.
    """
    second = [row for row in rows if row.again]
    if not second:
        return None
    one = second[0]
    cell = (one.draft, one.method, one.gamma, one.temperature)
    first = [
        row
        for row in rows
        if not row.again and (row.draft, row.method, row.gamma, row.temperature) == cell
    ]
    assert one.draft is not None and one.method is not None and one.gamma is not None
    return NoiseFloor(
        draft=one.draft,
        method=one.method,
        gamma=one.gamma,
        temperature=one.temperature,
        documents=len({row.unit for row in second}),
        speed=intervals.relative(_speed(second), _speed(first), confidence),
        tau=intervals.relative(_tau(second), _tau(first), confidence),
    )


def in_words(found: NoiseFloor) -> str:
    """A sentence for the findings."""
    speed = with_interval(*found.speed, form="+.1%")
    tau = with_interval(*found.tau, form="+.1%")
    return (
        f"Noise floor: the {found.draft} draft timed a second time (gamma {found.gamma}, T = "
        f"{found.temperature:g}) differs from itself by {speed} in tokens/s and {tau} in tau."
    )


def _ordered(rows: Sequence[CellRow]) -> list[CellRow]:
    """By prompt, so that documents come in one order."""
    return sorted(rows, key=lambda row: (row.prompt, row.repeat))


def _speed(rows: Sequence[CellRow]) -> Sums:
    mine = _ordered(rows)
    sums = Sums([float(len(row.tokens)) for row in mine], [row.seconds for row in mine])
    return by_document(sums, [row.unit for row in mine])


def _tau(rows: Sequence[CellRow]) -> Sums:
    mine = _ordered(rows)
    sums = Sums(
        [float(row.counts.emitted) for row in mine],
        [float(row.counts.verifications) for row in mine],
    )
    return by_document(sums, [row.unit for row in mine])

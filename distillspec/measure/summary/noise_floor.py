"""One cell timed twice (A/A): how much two equal drafts differ in this evaluation."""

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
    """The cell that is timed a second time, at temperature `suite.again_at`.

    It has the distilled or the last draft, the first standard method and the last gamma. None if
    the suite has no noise floor or no standard method.
    """
    of_suite = [name for name in drafts if name in suite.drafts]
    standard = [method for method in suite.methods if method.is_standard and method.model is None]
    if not suite.noise_floor or not of_suite or not standard:
        return None
    draft = DISTILLED if DISTILLED in of_suite else of_suite[-1]
    return BenchColumn(draft, standard[0], suite.of(standard[0])[-1], again=True)


def noise_floor(rows: Sequence[CellRow], confidence: float) -> NoiseFloor | None:
    """The second time over the first, paired by document; None if no cell was timed twice.

    Args:
        rows: All rows of an evaluation, with those of the second time.
        confidence: Confidence of the intervals.
    """
    second = [row for row in rows if row.again]
    if not second:
        return None
    row_again = second[0]
    cell = (row_again.draft, row_again.method, row_again.gamma, row_again.temperature)
    first = [
        row
        for row in rows
        if not row.again and (row.draft, row.method, row.gamma, row.temperature) == cell
    ]
    assert (
        row_again.draft is not None and row_again.method is not None and row_again.gamma is not None
    )
    return NoiseFloor(
        draft=row_again.draft,
        method=row_again.method,
        gamma=row_again.gamma,
        temperature=row_again.temperature,
        documents=len({row.unit for row in second}),
        speed=intervals.relative(_speed(second), _speed(first), confidence),
        tau=intervals.relative(_tau(second), _tau(first), confidence),
    )


def in_words(floor: NoiseFloor) -> str:
    """A sentence for the findings."""
    speed = with_interval(*floor.speed, form="+.1%")
    tau = with_interval(*floor.tau, form="+.1%")
    return (
        f"Noise floor: the {floor.draft} draft timed a second time (gamma {floor.gamma}, T = "
        f"{floor.temperature:g}) differs from itself by {speed} in tokens/s and {tau} in tau."
    )


def _ordered(rows: Sequence[CellRow]) -> list[CellRow]:
    """The rows in the order of their prompts, so that documents are paired."""
    return sorted(rows, key=lambda row: (row.prompt, row.repeat))


def _speed(rows: Sequence[CellRow]) -> Sums:
    ordered = _ordered(rows)
    sums = Sums([float(len(row.tokens)) for row in ordered], [row.seconds for row in ordered])
    return by_document(sums, [row.unit for row in ordered])


def _tau(rows: Sequence[CellRow]) -> Sums:
    ordered = _ordered(rows)
    sums = Sums(
        [float(row.counts.emitted) for row in ordered],
        [float(row.counts.verifications) for row in ordered],
    )
    return by_document(sums, [row.unit for row in ordered])

"""A cell's numbers by category of the prompts, and by length of the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import NOTHING, Interval, Sums, by_document
from distillspec.measure.summary.cells import CategoryCell, CellKey, ContextBin
from distillspec.measure.timed.rows import CellRow

FEW = 5  # prompts; with fewer only counts are shown, since an interval would be too wide
UNNAMED = "(none)"  # prompts without a category, if others have one


def by_category(
    key: CellKey,
    categories: Sequence[str | None],
    documents: Sequence[str],
    sums: tuple[Sums, Sums, Sums],
    confidence: float,
) -> list[CategoryCell]:
    """The numbers of a cell by category, in order of appearance.

    Args:
        key: The cell.
        categories, documents: Of each prompt, in the order of the sums.
        sums: Per prompt: accepted over drafted tokens, emitted tokens over rounds, and seconds of
            the baseline over the cell's.
        confidence: Confidence of the intervals.

    Returns:
        Empty if the prompts have fewer than two categories.
    """
    named = [category or UNNAMED for category in categories]
    names = list(dict.fromkeys(named))
    if len(names) < 2:
        return []
    cells = []
    for name in names:
        indices = [i for i, category in enumerate(named) if name == category]
        of = [documents[i] for i in indices]
        accepted, rounds, times = (_some(of_prompts, indices) for of_prompts in sums)
        acceptance, efficiency, gain = (
            _rate(of_category, of, confidence) for of_category in (accepted, rounds, times)
        )
        cells.append(
            CategoryCell(
                *key,
                category=name,
                prompts=len(indices),
                drafted=int(sum(accepted.denominators)),
                accepted=int(sum(accepted.numerators)),
                emitted=int(sum(rounds.numerators)),
                verifications=int(sum(rounds.denominators)),
                draft_acceptance=acceptance.within(0.0, 1.0),
                tau=efficiency,
                speedup=gain,
            )
        )
    return cells


def by_context(
    key: CellKey, rows: Mapping[int, Sequence[CellRow]], confidence: float
) -> list[ContextBin]:
    """Rounds that drafted, by the power of two below the length of their context.

    Only prompts that reach a bin have rounds in it: long contexts are late rounds, and rounds of
    long prompts.

    Args:
        key: The cell.
        rows: Its rows by prompt.
        confidence: Confidence of the intervals.
    """
    bins: dict[int, dict[int, list[tuple[int, int]]]] = {}
    for prompt, some in rows.items():
        for row in some:
            for drafted_round in row.rounds:
                if drafted_round.drafted:
                    # floor(log2(context)): a context of 5 tokens is in the bin [4, 8).
                    power = drafted_round.context.bit_length() - 1
                    rounds = bins.setdefault(power, {}).setdefault(prompt, [])
                    rounds.append((drafted_round.accepted, drafted_round.drafted))
    context_bins = []
    for power, by_prompt in sorted(bins.items()):
        # One entry per prompt, because rounds of one prompt are not independent.
        sums = Sums(
            [float(sum(accepted for accepted, _ in rounds)) for rounds in by_prompt.values()],
            [float(sum(drafted for _, drafted in rounds)) for rounds in by_prompt.values()],
        )
        of = [rows[prompt][0].unit for prompt in by_prompt]
        context_bins.append(
            ContextBin(
                *key,
                from_tokens=2**power,
                to_tokens=2 ** (power + 1),
                prompts=len(by_prompt),
                rounds=sum(map(len, by_prompt.values())),
                drafted=int(sum(sums.denominators)),
                accepted=int(sum(sums.numerators)),
                draft_acceptance=_rate(sums, of, confidence).within(0.0, 1.0),
            )
        )
    return context_bins


def _some(sums: Sums, which: Sequence[int]) -> Sums:
    return Sums([sums.numerators[i] for i in which], [sums.denominators[i] for i in which])


def _rate(sums: Sums, documents: Sequence[str], confidence: float) -> Interval:
    if len(documents) < FEW:
        return NOTHING
    return intervals.ratio(by_document(sums, documents), confidence)

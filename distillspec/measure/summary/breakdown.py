"""A cell's numbers by what the prompts are about, and by how much stands before the draft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import NOTHING, Interval, Sums, by_document
from distillspec.measure.summary.cells import CategoryCell, CellKey, ContextBin
from distillspec.measure.timed.rows import CellRow

FEW = 5  # prompts; of fewer only counts are told, since an interval over them says nothing
UNNAMED = "(none)"  # prompts without a category, beside some that have one


def by_category(
    key: CellKey,
    categories: Sequence[str | None],
    documents: Sequence[str],
    sums: tuple[Sums, Sums, Sums],
    confidence: float,
) -> list[CategoryCell]:
    """The cell at `key` by category, in order of appearance.

    categories, documents: of the prompts, in the order of the sums, which are accepted over
    drafted, emitted over verifications, and seconds of the baseline over the cell's. Empty where
    all prompts are of one category, or of none.
    """
    names = list(dict.fromkeys(UNNAMED if one is None else one for one in categories))
    if len(names) < 2:
        return []
    found = []
    for name in names:
        mine = [i for i, one in enumerate(categories) if name == (one or UNNAMED)]
        of = [documents[i] for i in mine]
        kept, rounds, times = (_some(one, mine) for one in sums)
        acceptance, efficiency, gain = (_rate(one, of, confidence) for one in (kept, rounds, times))
        found.append(
            CategoryCell(
                *key,
                category=name,
                prompts=len(mine),
                drafted=int(sum(kept.denominators)),
                accepted=int(sum(kept.numerators)),
                emitted=int(sum(rounds.numerators)),
                verifications=int(sum(rounds.denominators)),
                draft_acceptance=acceptance.within(0.0, 1.0),
                tau=efficiency,
                speedup=gain,
            )
        )
    return found


def by_context(
    key: CellKey, rows: Mapping[int, Sequence[CellRow]], confidence: float
) -> list[ContextBin]:
    """Rounds of the cell's rows (by prompt) that drafted, by the power of two below their context.

    A bin's rounds come from those prompts alone that reach it: long contexts are late rounds, and
    rounds of long prompts.
    """
    bins: dict[int, dict[int, list[tuple[int, int]]]] = {}
    for prompt, some in rows.items():
        for row in some:
            for one in row.rounds:
                if one.drafted:
                    power = one.context.bit_length() - 1
                    rounds = bins.setdefault(power, {}).setdefault(prompt, [])
                    rounds.append((one.accepted, one.drafted))
    found = []
    for power, by_prompt in sorted(bins.items()):
        sums = Sums(
            [float(sum(accepted for accepted, _ in rounds)) for rounds in by_prompt.values()],
            [float(sum(drafted for _, drafted in rounds)) for rounds in by_prompt.values()],
        )
        of = [rows[prompt][0].unit for prompt in by_prompt]
        found.append(
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
    return found


def _some(sums: Sums, which: Sequence[int]) -> Sums:
    return Sums([sums.numerators[i] for i in which], [sums.denominators[i] for i in which])


def _rate(sums: Sums, documents: Sequence[str], confidence: float) -> Interval:
    if len(documents) < FEW:
        return NOTHING
    return intervals.ratio(by_document(sums, documents), confidence)

"""A cell's numbers by what the prompts are about, and by how much stands before the draft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import NOTHING, Interval, Sums, by_document
from distillspec.measure.timed.rows import CellRow

FEW = 5  # prompts; of fewer only counts are told, since an interval over them says nothing
UNNAMED = "(none)"  # prompts without a category, beside some that have one


@dataclass(frozen=True)
class CategoryCell:
    """A cell on the prompts of one category. Counts are of whole rounds.

    Rates and intervals do not exist (nan) where there are fewer than FEW prompts.
    """

    draft: str
    method: str
    gamma: int
    temperature: float
    category: str
    prompts: int
    drafted: int
    accepted: int
    emitted: int
    verifications: int
    draft_acceptance: float
    draft_acceptance_low: float
    draft_acceptance_high: float
    tau: float
    tau_low: float
    tau_high: float
    speedup: float
    speedup_low: float
    speedup_high: float


@dataclass(frozen=True)
class ContextBin:
    """A cell's whole rounds with from_tokens <= prompt and output so far < to_tokens.

    prompts: that have such a round. The acceptance does not exist (nan) where they are fewer than
    FEW.
    """

    draft: str
    method: str
    gamma: int
    temperature: float
    from_tokens: int
    to_tokens: int
    prompts: int
    rounds: int
    drafted: int
    accepted: int
    draft_acceptance: float
    draft_acceptance_low: float
    draft_acceptance_high: float


def by_category(
    place: tuple[str, str, int, float],
    categories: Sequence[str | None],
    documents: Sequence[str],
    sums: tuple[Sums, Sums, Sums],
    confidence: float,
) -> list[CategoryCell]:
    """The cell at `place` (draft, method, gamma, temperature) by category, in order of appearance.

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
        acceptance = acceptance.within(0.0, 1.0)
        found.append(
            CategoryCell(
                *place,
                category=name,
                prompts=len(mine),
                drafted=int(sum(kept.denominators)),
                accepted=int(sum(kept.numerators)),
                emitted=int(sum(rounds.numerators)),
                verifications=int(sum(rounds.denominators)),
                draft_acceptance=acceptance.value,
                draft_acceptance_low=acceptance.low,
                draft_acceptance_high=acceptance.high,
                tau=efficiency.value,
                tau_low=efficiency.low,
                tau_high=efficiency.high,
                speedup=gain.value,
                speedup_low=gain.low,
                speedup_high=gain.high,
            )
        )
    return found


def by_context(
    place: tuple[str, str, int, float], rows: Mapping[int, Sequence[CellRow]], confidence: float
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
        acceptance = _rate(sums, of, confidence).within(0.0, 1.0)
        found.append(
            ContextBin(
                *place,
                from_tokens=2**power,
                to_tokens=2 ** (power + 1),
                prompts=len(by_prompt),
                rounds=sum(map(len, by_prompt.values())),
                drafted=int(sum(sums.denominators)),
                accepted=int(sum(sums.numerators)),
                draft_acceptance=acceptance.value,
                draft_acceptance_low=acceptance.low,
                draft_acceptance_high=acceptance.high,
            )
        )
    return found


def _some(sums: Sums, which: Sequence[int]) -> Sums:
    return Sums([sums.numerators[i] for i in which], [sums.denominators[i] for i in which])


def _rate(sums: Sums, documents: Sequence[str], confidence: float) -> Interval:
    if len(documents) < FEW:
        return NOTHING
    return intervals.ratio(by_document(sums, documents), confidence)

"""Comparisons of drafts, paired over the same documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Sums
from distillspec.measure.summary.records import DraftComparison, Quantity
from distillspec.measure.summary.tally import Tally

_Stated = Mapping[float, tuple[str, int]]
"""Method and gamma by temperature."""


class _Pair(NamedTuple):
    quantity: Quantity
    against: str
    method: str | None
    gamma: int | None
    temperature: float
    sums: Sums
    base: Sums

    def is_stated(self, stated: _Stated) -> bool:
        method, gamma = stated[self.temperature]
        return self.method in (None, method) and self.gamma in (None, gamma)


def comparisons(
    tally: Tally, draft: str, against: Sequence[str], stated: _Stated
) -> list[DraftComparison]:
    """Compare `draft` with the others: on the target's texts, then tau and speed per cell.

    Args:
        tally: The evaluation.
        draft: The draft of interest.
        against: The drafts that it is compared with.
        stated: Method and gamma with a verdict, by temperature. All verdicts are tested together;
            the other cells have intervals without a correction.
    """
    pairs = list(_pairs(tally, draft, against))
    # Only these share the confidence: more tests would make each verdict weaker.
    tested = [pair for pair in pairs if pair.is_stated(stated)]
    made = intervals.verdicts([(pair.sums, pair.base) for pair in tested], tally.confidence)
    # By identity, because a pair holds lists and has no hash.
    verdicts = {id(pair): verdict for pair, verdict in zip(tested, made, strict=True)}
    return [
        replace(_compared(tally, draft, pair), verdict=verdicts.get(id(pair), "not tested"))
        for pair in pairs
    ]


def _pairs(tally: Tally, draft: str, against: Sequence[str]) -> Iterator[_Pair]:
    keys = [key for key in tally.cell_keys() if key.draft == draft]
    for base in against:
        for temperature in sorted({key.temperature for key in keys}):
            facts = tally.facts[temperature]
            # 1. On texts of the target, without the noise of decoding.
            sums = facts.alpha(draft), facts.alpha(base)
            yield _Pair("alpha", base, None, None, temperature, *sums)
            for gamma in sorted({key.gamma for key in keys if key.method in tally.standard}):
                sums = facts.expected_tau(draft, gamma), facts.expected_tau(base, gamma)
                yield _Pair("expected tau", base, None, gamma, temperature, *sums)
        # 2. By decoding, in the cells that both drafts have.
        for key in keys:
            other_key = key._replace(draft=base)
            if other_key in tally.cell_keys():
                yield _Pair("tau", *other_key, tally.tau(key), tally.tau(other_key))
                yield _Pair("speed", *other_key, tally.speed(key), tally.speed(other_key))


def _compared(tally: Tally, draft: str, pair: _Pair) -> DraftComparison:
    sums, base = pair.sums, pair.base
    return DraftComparison(
        quantity=pair.quantity,
        draft=draft,
        against=pair.against,
        method=pair.method,
        gamma=pair.gamma,
        temperature=pair.temperature,
        prompts=tally.prompts() if pair.method else tally.texts(pair.temperature),
        documents=len(sums.numerators),
        value=sums.ratio(),
        against_value=base.ratio(),
        difference=intervals.difference(sums, base, tally.confidence),
        relative=intervals.relative(sums, base, tally.confidence),
        verdict="not tested",
    )

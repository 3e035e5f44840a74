"""Drafts against each other, paired over the same documents; a verdict where one is stated."""

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
    one: Sums
    other: Sums

    def is_stated(self, stated: _Stated) -> bool:
        method, gamma = stated[self.temperature]
        return self.method in (None, method) and self.gamma in (None, gamma)


def comparisons(
    tally: Tally, draft: str, against: Sequence[str], stated: _Stated
) -> list[DraftComparison]:
    """`draft` against each other one: on the target's texts, then tau and speed per cell.

    stated: where a verdict is given, which is one place a temperature. All these verdicts are one
    family of claims; the other places have intervals alone, each by itself.
    """
    pairs = list(_pairs(tally, draft, against))
    tested = [pair for pair in pairs if pair.is_stated(stated)]
    made = intervals.verdicts([(pair.one, pair.other) for pair in tested], tally.confidence)
    verdicts = {id(pair): verdict for pair, verdict in zip(tested, made, strict=True)}
    return [
        replace(_compared(tally, draft, pair), verdict=verdicts.get(id(pair), "not tested"))
        for pair in pairs
    ]


def _pairs(tally: Tally, draft: str, against: Sequence[str]) -> Iterator[_Pair]:
    keys = [key for key in tally.cell_keys() if key.draft == draft]
    for other in against:
        for temperature in sorted({key.temperature for key in keys}):
            facts = tally.facts[temperature]
            sums = facts.alpha(draft), facts.alpha(other)
            yield _Pair("alpha", other, None, None, temperature, *sums)
            for gamma in sorted({key.gamma for key in keys if key.method in tally.standard}):
                sums = facts.expected_tau(draft, gamma), facts.expected_tau(other, gamma)
                yield _Pair("expected tau", other, None, gamma, temperature, *sums)
        for key in keys:
            other_key = key._replace(draft=other)
            if other_key in tally.cell_keys():
                yield _Pair("tau", *other_key, tally.tau(key), tally.tau(other_key))
                yield _Pair("speed", *other_key, tally.speed(key), tally.speed(other_key))


def _compared(tally: Tally, draft: str, pair: _Pair) -> DraftComparison:
    one, other = pair.one, pair.other
    return DraftComparison(
        quantity=pair.quantity,
        draft=draft,
        against=pair.against,
        method=pair.method,
        gamma=pair.gamma,
        temperature=pair.temperature,
        prompts=tally.prompts() if pair.method else tally.texts(pair.temperature),
        documents=len(one.numerators),
        value=one.ratio(),
        against_value=other.ratio(),
        difference=intervals.difference(one, other, tally.confidence),
        relative=intervals.relative(one, other, tally.confidence),
        verdict="not tested",
    )

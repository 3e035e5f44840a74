"""Drafts against each other, paired over the same prompts."""

from __future__ import annotations

from collections.abc import Sequence

from distillspec.measure import bootstrap
from distillspec.measure.bootstrap import Interval, Sums
from distillspec.measure.summary import Comparison, Quantity, Verdict
from distillspec.measure.tally import Tally


def comparisons(tally: Tally, draft: str, against: Sequence[str]) -> list[Comparison]:
    """`draft` against each other one: on the target's texts, then tau and speed per cell."""
    found = []
    places = tally.places()
    mine = [place for place in places if place[0] == draft]
    for other in against:
        for temperature in sorted({place[3] for place in mine}):
            facts = tally.facts[temperature]
            whole = (draft, other, None, None, temperature)
            found.append(_compared(tally, "alpha", whole, facts.alpha(draft), facts.alpha(other)))
            for gamma in sorted({place[2] for place in mine if place[1] in tally.standard}):
                found.append(
                    _compared(
                        tally,
                        "expected tau",
                        (draft, other, None, gamma, temperature),
                        facts.expected_tau(draft, gamma),
                        facts.expected_tau(other, gamma),
                    )
                )
        for place in mine:
            theirs = (other, *place[1:])
            if theirs in places:
                here = (draft, other, *place[1:])
                found.append(_compared(tally, "tau", here, tally.tau(place), tally.tau(theirs)))
                found.append(
                    _compared(tally, "speed", here, tally.speed(place), tally.speed(theirs))
                )
    return found


def _compared(
    tally: Tally,
    quantity: Quantity,
    where: tuple[str, str, str | None, int | None, float],
    one: Sums,
    other: Sums,
) -> Comparison:
    draft, against, method, gamma, temperature = where
    difference = bootstrap.difference(one, other, tally.how)
    relative = bootstrap.relative(one, other, tally.how)
    return Comparison(
        quantity=quantity,
        draft=draft,
        against=against,
        method=method,
        gamma=gamma,
        temperature=temperature,
        prompts=len(one.numerators),
        value=one.ratio(),
        against_value=other.ratio(),
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        relative=relative.value,
        relative_low=relative.low,
        relative_high=relative.high,
        verdict=_verdict(difference),
    )


def _verdict(difference: Interval) -> Verdict:
    if not difference.excludes(0.0):
        return "no difference shown"
    return "higher" if difference.low > 0.0 else "lower"

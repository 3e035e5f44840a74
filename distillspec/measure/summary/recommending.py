"""Which gamma to decode with, said in words; where speculation only costs, it says so."""

from __future__ import annotations

from collections.abc import Sequence

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Sums
from distillspec.measure.summary.records import Recommendation
from distillspec.measure.summary.tally import Tally
from distillspec.text.numbers import with_interval


def recommendations(tally: Tally) -> list[Recommendation]:
    """Per draft and method: the best gamma at each temperature, and over all of them."""
    found = []
    for draft, method in dict.fromkeys(place[:2] for place in tally.places()):
        temperatures = sorted({p[3] for p in tally.places() if p[:2] == (draft, method)})
        for at in (*temperatures, None):
            found.append(
                _recommended(tally, draft, method, at, temperatures if at is None else [at])
            )
    return found


def recommended(tally: Tally, draft: str) -> dict[float, tuple[str, int]]:
    """Of this draft, by temperature: the method and gamma with the highest measured speed-up.

    Of the standard methods, where there are some: those are what engines run.
    """
    mine = [place for place in tally.places() if place[0] == draft]
    mine = [place for place in mine if place[1] in tally.standard] or mine
    found = {}
    for temperature in sorted({place[3] for place in mine}):
        here = [place for place in mine if place[3] == temperature]
        best = max(here, key=lambda place: tally.speedup(place).ratio())
        found[temperature] = (best[1], best[2])
    return found


def _recommended(
    tally: Tally, draft: str, method: str, at: float | None, temperatures: Sequence[float]
) -> Recommendation:
    gammas = sorted({place[2] for place in tally.places() if place[:2] == (draft, method)})
    sums = {
        gamma: _added([tally.speedup((draft, method, gamma, t)) for t in temperatures])
        for gamma in gammas
    }
    gamma = max(gammas, key=lambda one: sums[one].ratio())
    among, confidence = len(gammas), tally.confidence
    best = intervals.ratio(sums[gamma], confidence, among)
    named = "" if method in tally.standard else f"{method}, "
    words = f"{named}gamma {gamma}: {with_interval(*best, unit='x')}"
    verdict = intervals.verdict_against(sums[gamma], 1.0, confidence, among)
    if verdict == "lower":
        words = f"do not speculate: slower than autoregressive at every gamma ({words})"
    elif verdict == "no difference shown":
        words = f"no gain shown: the interval contains 1 ({words})"
    elif verdict == "too few documents":
        words += f"; {tally.documents()} documents are too few to say more"
    else:
        near = [
            one
            for one in gammas
            if one != gamma
            and not intervals.relative(sums[one], sums[gamma], confidence, among - 1).high < 0.0
        ]
        if near:
            words += f"; within noise of it: gamma {', '.join(map(str, near))}"
    return Recommendation(draft, method, at, gamma, best.value, best.low, best.high, words)


def _added(parts: Sequence[Sums]) -> Sums:
    """Document by document."""
    return Sums(
        [sum(values) for values in zip(*(part.numerators for part in parts), strict=True)],
        [sum(values) for values in zip(*(part.denominators for part in parts), strict=True)],
    )

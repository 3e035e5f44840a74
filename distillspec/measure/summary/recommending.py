"""Which gamma to decode with, said in words; where speculation only costs, it says so."""

from __future__ import annotations

from collections.abc import Sequence

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Sums
from distillspec.measure.summary.cells import CellKey
from distillspec.measure.summary.records import Recommendation
from distillspec.measure.summary.tally import Tally
from distillspec.text.numbers import with_interval


def recommendations(tally: Tally) -> list[Recommendation]:
    """Per draft and method: the best gamma at each temperature, and over all of them."""
    found = []
    for draft, method in dict.fromkeys((key.draft, key.method) for key in tally.cell_keys()):
        keys = [key for key in tally.cell_keys() if (key.draft, key.method) == (draft, method)]
        for temperature in (*sorted({key.temperature for key in keys}), None):
            found.append(_recommended(tally, keys, temperature))
    return found


def recommended(tally: Tally, draft: str) -> dict[float, tuple[str, int]]:
    """Of this draft, by temperature: the method and gamma with the highest measured speed-up.

    Of the standard methods, where there are some: those are what engines run.
    """
    keys = [key for key in tally.cell_keys() if key.draft == draft]
    keys = [key for key in keys if key.method in tally.standard] or keys
    found = {}
    for temperature in sorted({key.temperature for key in keys}):
        candidates = [key for key in keys if key.temperature == temperature]
        best = max(candidates, key=lambda key: tally.speedup(key).ratio())
        found[temperature] = (best.method, best.gamma)
    return found


def _recommended(
    tally: Tally, keys: Sequence[CellKey], temperature: float | None
) -> Recommendation:
    """keys: cells of one draft and method. temperature: None adds all temperatures up."""
    draft, method = keys[0].draft, keys[0].method
    gammas = sorted({key.gamma for key in keys})
    sums = {
        gamma: _added(
            [
                tally.speedup(key)
                for key in sorted(keys, key=lambda key: key.temperature)
                if key.gamma == gamma and temperature in (None, key.temperature)
            ]
        )
        for gamma in gammas
    }
    gamma = max(gammas, key=lambda gamma: sums[gamma].ratio())
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
    return Recommendation(draft, method, temperature, gamma, best, words)


def _added(parts: Sequence[Sums]) -> Sums:
    """Document by document."""
    return Sums(
        [sum(values) for values in zip(*(part.numerators for part in parts), strict=True)],
        [sum(values) for values in zip(*(part.denominators for part in parts), strict=True)],
    )

"""Which gamma to use, in words, and whether speculation pays at all."""

from __future__ import annotations

from collections.abc import Sequence

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Sums
from distillspec.measure.summary.cells import CellKey
from distillspec.measure.summary.records import Recommendation
from distillspec.measure.summary.tally import Tally
from distillspec.text.numbers import with_interval


def recommendations(tally: Tally) -> list[Recommendation]:
    """For each draft and method, the best gamma at each temperature and over all of them."""
    shown = []
    for draft, method in dict.fromkeys((key.draft, key.method) for key in tally.cell_keys()):
        keys = [key for key in tally.cell_keys() if (key.draft, key.method) == (draft, method)]
        for temperature in (*sorted({key.temperature for key in keys}), None):
            shown.append(_recommended(tally, keys, temperature))
    return shown


def recommended(tally: Tally, draft: str) -> dict[float, tuple[str, int]]:
    """Method and gamma with the draft's highest measured speed-up, by temperature.

    Only standard methods, which engines run, if there are any.
    """
    keys = [key for key in tally.cell_keys() if key.draft == draft]
    keys = [key for key in keys if key.method in tally.standard] or keys
    chosen = {}
    for temperature in sorted({key.temperature for key in keys}):
        candidates = [key for key in keys if key.temperature == temperature]
        best = max(candidates, key=lambda key: tally.speedup(key).ratio())
        chosen[temperature] = (best.method, best.gamma)
    return chosen


def _recommended(
    tally: Tally, keys: Sequence[CellKey], temperature: float | None
) -> Recommendation:
    """The best gamma of these cells.

    Args:
        tally: The evaluation.
        keys: Cells of one draft and method.
        temperature: None adds up all temperatures.
    """
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
    # The data picked this gamma, so its interval allows for all candidates.
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
        words += f"; {tally.documents()} documents are too few for a verdict"
    else:
        near = [
            # `not <`, so that an unknown bound (nan) counts as near.
            other_gamma
            for other_gamma in gammas
            if other_gamma != gamma
            and not intervals.relative(sums[other_gamma], sums[gamma], confidence, among - 1).high
            < 0.0
        ]
        if near:
            words += f"; within noise of it: gamma {', '.join(map(str, near))}"
    return Recommendation(draft, method, temperature, gamma, best, words)


def _added(parts: Sequence[Sums]) -> Sums:
    """Sum for each document."""
    return Sums(
        [sum(values) for values in zip(*(part.numerators for part in parts), strict=True)],
        [sum(values) for values in zip(*(part.denominators for part in parts), strict=True)],
    )

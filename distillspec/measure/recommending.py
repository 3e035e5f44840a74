"""Which gamma to decode with, said in words; where speculation only costs, it says so."""

from __future__ import annotations

from collections.abc import Sequence

from distillspec.measure import bootstrap
from distillspec.measure.bootstrap import Sums
from distillspec.measure.summary import Recommendation
from distillspec.measure.tally import Tally


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


def _recommended(
    tally: Tally, draft: str, method: str, at: float | None, temperatures: Sequence[float]
) -> Recommendation:
    gammas = sorted({place[2] for place in tally.places() if place[:2] == (draft, method)})
    measured = {
        gamma: bootstrap.ratio(
            _added([tally.speedup((draft, method, gamma, t)) for t in temperatures]), tally.how
        )
        for gamma in gammas
    }
    gamma, best = max(measured.items(), key=lambda item: item[1].value)
    near = [g for g, interval in measured.items() if g != gamma and interval.high >= best.low]
    named = "" if method in tally.standard else f"{method}, "
    words = f"{named}gamma {gamma}: {best.value:.2f}x [{best.low:.2f}, {best.high:.2f}]"
    if best.high < 1.0:
        words = f"do not speculate: slower than autoregressive at every gamma ({words})"
    elif best.low <= 1.0:
        words = f"no gain shown: the interval contains 1 ({words})"
    elif near:
        words += f"; within its interval: gamma {', '.join(map(str, near))}"
    return Recommendation(draft, method, at, gamma, best.value, best.low, best.high, words)


def _added(parts: Sequence[Sums]) -> Sums:
    """Prompt by prompt."""
    return Sums(
        [sum(values) for values in zip(*(part.numerators for part in parts), strict=True)],
        [sum(values) for values in zip(*(part.denominators for part in parts), strict=True)],
    )

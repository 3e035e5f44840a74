"""What an evaluation found, in sentences; a null result is said as plainly as a gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from distillspec.measure.summary import (
    Baseline,
    Cell,
    Comparison,
    GreedyDivergence,
    Recommendation,
)

_FEW_PROMPTS = 10
_PREDICTION_FLOOR = 0.85
_LOOPING = 0.3
_QUIET = 0.25


def findings(
    cells: Sequence[Cell],
    baseline: Sequence[Baseline],
    comparisons: Sequence[Comparison],
    recommendation: Sequence[Recommendation],
    divergences: Sequence[GreedyDivergence],
    processes: int,
) -> list[str]:
    """Sentences, the most important first; the last ones are cautions."""
    return [
        *_gains(recommendation),
        *_differences(comparisons),
        *_limits(cells),
        *_cautions(cells, baseline, divergences, processes),
    ]


def _gains(recommendation: Sequence[Recommendation]) -> list[str]:
    best = [one for one in recommendation if one.temperature is not None]
    last = best[-1].draft if best else ""
    shown = [one for one in best if one.draft == ("distilled" if _has(best) else last)]
    return [f"T = {one.temperature:g}, {one.draft} draft: {one.words}." for one in shown]


def _has(best: Sequence[Recommendation]) -> bool:
    return any(one.draft == "distilled" for one in best)


def _differences(comparisons: Sequence[Comparison]) -> list[str]:
    """One sentence per pair of drafts, temperature and quantity, over all gammas."""
    said = []
    for quantity in ("expected tau", "tau", "alpha"):
        chosen = [
            one for one in comparisons if one.quantity == quantity and math.isfinite(one.difference)
        ]
        chosen.sort(key=lambda one: (one.against != "undistilled", one.against, one.temperature))
        for (against, temperature), group in groupby(
            chosen, key=lambda one: (one.against, one.temperature)
        ):
            some = list(group)
            head = f"{some[0].draft.capitalize()} against {against} at T = {temperature:g}: "
            words = _alpha_words(some[0]) if quantity == "alpha" else _tau_words(some)
            said.append(head + words)
    return said


def _tau_words(some: Sequence[Comparison]) -> str:
    tau, parts = some[0].quantity, []
    for verdict in ("higher", "lower"):
        here = [one for one in some if one.verdict == verdict]
        if here:
            low, high = min(o.relative for o in here), max(o.relative for o in here)
            gammas = ", ".join(_place(one) for one in here)
            spread = f"{low:+.1%}" if len(here) == 1 else f"{low:+.1%} to {high:+.1%}"
            parts.append(f"{tau} is {verdict} at gamma {gammas} ({spread}, interval excludes 0)")
    silent = [one for one in some if one.verdict == "no difference shown"]
    if len(silent) == len(some):
        widest = max(max(abs(o.relative_low), abs(o.relative_high)) for o in some)
        return (
            f"no difference in {tau} is shown at any gamma (every interval contains 0; "
            f"differences beyond {widest:.1%} are unlikely)."
        )
    if silent:
        gammas = ", ".join(_place(one) for one in silent)
        parts.append(f"no difference shown at gamma {gammas}")
    return "; ".join(parts) + "."


def _place(one: Comparison) -> str:
    """Its gamma, and its method if that is not the standard one."""
    return str(one.gamma) if one.method in (None, "standard") else f"{one.gamma} ({one.method})"


def _alpha_words(one: Comparison) -> str:
    numbers = (
        f"{one.against_value:.3f} -> {one.value:.3f}, difference {one.difference:+.3f} "
        f"[{one.low:+.3f}, {one.high:+.3f}]"
    )
    if one.verdict == "no difference shown":
        return f"no difference in alpha is shown ({numbers})."
    return f"alpha is {one.verdict} ({numbers})."


def _limits(cells: Sequence[Cell]) -> list[str]:
    """Pairs that cannot win, whatever the training."""
    said = []
    for draft in dict.fromkeys(cell.draft for cell in cells):
        mine = [cell for cell in cells if cell.draft == draft]
        known = [cell.perfect_draft_cap for cell in mine if math.isfinite(cell.perfect_draft_cap)]
        cap = max(known, default=math.inf)
        if cap < 1.0:
            said.append(
                f"Even a perfect {draft} draft would be slower than autoregressive decoding on "
                f"this machine (cap {cap:.2f}x): a smaller draft is needed, not a better one."
            )
    return said


def _cautions(
    cells: Sequence[Cell],
    baseline: Sequence[Baseline],
    divergences: Sequence[GreedyDivergence],
    processes: int,
) -> list[str]:
    said = []
    short = [cell for cell in cells if cell.measured_over_predicted < _PREDICTION_FLOOR]
    if short:
        worst = min(cell.measured_over_predicted for cell in short)
        said.append(
            f"{len(short)} of {len(cells)} cells reach less than {_PREDICTION_FLOOR:.0%} of their "
            f"predicted speed-up (lowest {worst:.0%}): time goes where the model does not look."
        )
    spread = max((one.step_spread for one in baseline), default=0.0)
    if spread > _QUIET:
        said.append(
            "The machine was not quiet while single steps were timed (quartiles up to "
            f"{spread:.0%} of a median apart): c, v and the predictions are rough."
        )
    if cells and cells[0].prompts < _FEW_PROMPTS:
        said.append(f"Only {cells[0].prompts} prompts: the intervals are rough.")
    for one in baseline:
        if one.repeated_ngram_share is not None and one.repeated_ngram_share > _LOOPING:
            said.append(
                f"At T = {one.temperature:g} {one.repeated_ngram_share:.0%} of the 4-grams repeat "
                "earlier ones: the target loops, which flatters alpha and tau."
            )
    if divergences:
        texts = {(one.prompt_key, one.position) for one in divergences}
        widest = max(one.gap for one in divergences)
        said.append(
            f"At T = 0, {len(divergences)} of the speculative texts leave the baseline's, at "
            f"{len(texts)} places; the target's two highest logits differ there by at most "
            f"{widest:.3g}."
        )
    if processes > 1:
        said.append(
            f"{processes} processes timed these rows (the evaluation was interrupted); every "
            "comparison block comes from one of them."
        )
    return said

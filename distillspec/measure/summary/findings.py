"""What an evaluation found, in sentences; a null result is said as plainly as a gain."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from distillspec.measure.stats import intervals
from distillspec.measure.summary.records import (
    Baseline,
    Cell,
    DraftComparison,
    GreedyDivergence,
    Recommendation,
)
from distillspec.text.numbers import bracketed, known

_PREDICTION_FLOOR = 0.85
_LOOPING = 0.3
_QUIET = 0.25


def findings(
    cells: Sequence[Cell],
    baseline: Sequence[Baseline],
    comparisons: Sequence[DraftComparison],
    recommendation: Sequence[Recommendation],
    divergences: Sequence[GreedyDivergence],
    documents: int,
) -> list[str]:
    """Sentences, the most important first; the last ones are cautions.

    documents: how many the decoded prompts come from.
    """
    return [
        *_gains(recommendation),
        *_differences(comparisons),
        *_limits(cells),
        *cautions(cells, baseline, divergences, documents),
    ]


def _gains(recommendation: Sequence[Recommendation]) -> list[str]:
    best = [one for one in recommendation if one.temperature is not None]
    last = best[-1].draft if best else ""
    shown = [one for one in best if one.draft == ("distilled" if _has(best) else last)]
    return [f"T = {one.temperature:g}, {one.draft} draft: {one.words}." for one in shown]


def _has(best: Sequence[Recommendation]) -> bool:
    return any(one.draft == "distilled" for one in best)


def _differences(comparisons: Sequence[DraftComparison]) -> list[str]:
    """What was tested, a sentence per pair of drafts, temperature and quantity.

    Everything that was not tested has its interval in the table, and no sentence.
    """
    tested = [one for one in comparisons if one.verdict != "not tested"]
    shown = [one for one in tested if math.isfinite(one.difference.value)]
    order = ("expected tau", "tau", "alpha", "speed")
    shown.sort(
        key=lambda one: (
            order.index(one.quantity),
            one.against != "undistilled",
            one.against,
            one.temperature,
        )
    )
    said = [_difference(one) for one in shown]
    if len(shown) > 1 and any(one.verdict in ("higher", "lower") for one in shown):
        said.append(
            f"These {len(shown)} comparisons were tested together (Holm); the intervals of "
            "single cells allow for no other cell."
        )
    return said


def _difference(one: DraftComparison) -> str:
    form = {"tau": ".2f", "speed": ".0f"}.get(one.quantity, ".3f")
    name = "tokens/s" if one.quantity == "speed" else one.quantity
    gamma = "" if one.gamma is None else f", gamma {_place(one)}"
    numbers = f"{one.against_value:{form}} -> {one.value:{form}}"
    if math.isfinite(one.relative.value):
        numbers += f", {one.relative.value:+.1%}"
    if math.isfinite(one.relative.low + one.relative.high):  # none where a side is 0 in all texts
        numbers += f" {bracketed(one.relative.low, one.relative.high, '+.1%')}"
    words = {
        "higher": f"{name} is higher ({numbers})",
        "lower": f"{name} is lower ({numbers})",
        "too few documents": f"{name} {numbers}; {one.documents} documents are too few to say more",
    }.get(one.verdict, f"no difference in {name} is shown ({numbers})")
    head = f"{one.draft.capitalize()} against {one.against} at T = {one.temperature:g}{gamma}: "
    return f"{head}{words}."


def _place(one: DraftComparison) -> str:
    """Its gamma, and its method if that is not the standard one."""
    return str(one.gamma) if one.method in (None, "standard") else f"{one.gamma} ({one.method})"


def served_cautions(
    cells: Sequence[Cell],
    baseline: Sequence[Baseline],
    divergences: Sequence[GreedyDivergence],
    documents: int,
    standard: Collection[str],
) -> list[str]:
    """Those about the methods that engines run, by name in `standard`."""
    return cautions(
        [one for one in cells if one.method in standard],
        baseline,
        [one for one in divergences if one.method in standard],
        documents,
    )


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


def cautions(
    cells: Sequence[Cell],
    baseline: Sequence[Baseline],
    divergences: Sequence[GreedyDivergence],
    documents: int,
) -> list[str]:
    """What makes the numbers of these cells doubtful: also of a part of an evaluation's cells."""
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
    if cells and documents < intervals.FEWEST:
        said.append(
            f"The {cells[0].prompts} prompts come from {documents} documents, and fewer than "
            f"{intervals.FEWEST} say too little: no verdict is given."
        )
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
            f"{len(texts)} places; the target's logits of the two tokens lie there at most "
            f"{known(widest, '.3g')} below the highest."
        )
        if third := sum(not one.are_top_two for one in divergences):
            said.append(
                f"{third} of them have a token there that is not among the target's top two: no "
                "near-tie explains that. Please report it."
            )
    return said

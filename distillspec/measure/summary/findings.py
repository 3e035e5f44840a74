"""The findings of an evaluation as sentences. A null result is as explicit as a gain."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from distillspec.measure.stats import intervals
from distillspec.measure.summary.cells import Baseline, Cell
from distillspec.measure.summary.records import (
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
    """Sentences, the most important first. Cautions come last.

    Args:
        cells, baseline, comparisons, recommendation, divergences: Records of the evaluation.
        documents: Number of documents that the decoded prompts come from.
    """
    return [
        *_gains(recommendation),
        *_differences(comparisons),
        *_limits(cells),
        *cautions(cells, baseline, divergences, documents),
    ]


def _gains(recommendation: Sequence[Recommendation]) -> list[str]:
    best = [recommended for recommended in recommendation if recommended.temperature is not None]
    # Without a distilled draft, the last draft is shown.
    last = best[-1].draft if best else ""
    shown = [
        recommended
        for recommended in best
        if recommended.draft == ("distilled" if _has(best) else last)
    ]
    return [
        f"T = {recommended.temperature:g}, {recommended.draft} draft: {recommended.words}."
        for recommended in shown
    ]


def _has(best: Sequence[Recommendation]) -> bool:
    return any(recommended.draft == "distilled" for recommended in best)


def _differences(comparisons: Sequence[DraftComparison]) -> list[str]:
    """One sentence per tested pair of drafts, temperature and quantity.

    Comparisons without a test have an interval in the table, and no sentence.
    """
    tested = [comparison for comparison in comparisons if comparison.verdict != "not tested"]
    shown = [comparison for comparison in tested if math.isfinite(comparison.difference.value)]
    order = ("expected tau", "tau", "alpha", "speed")
    shown.sort(
        key=lambda comparison: (
            order.index(comparison.quantity),
            comparison.against != "undistilled",
            comparison.against,
            comparison.temperature,
        )
    )
    sentences = [_difference(comparison) for comparison in shown]
    # Only a claim among several tests needs the note.
    if len(shown) > 1 and any(comparison.verdict in ("higher", "lower") for comparison in shown):
        sentences.append(
            f"These {len(shown)} comparisons were tested together (Holm); the intervals of "
            "single cells are not corrected for the number of cells."
        )
    return sentences


def _difference(comparison: DraftComparison) -> str:
    form = {"tau": ".2f", "speed": ".0f"}.get(comparison.quantity, ".3f")
    name = "tokens/s" if comparison.quantity == "speed" else comparison.quantity
    gamma = "" if comparison.gamma is None else f", gamma {_configuration(comparison)}"
    numbers = f"{comparison.against_value:{form}} -> {comparison.value:{form}}"
    if math.isfinite(comparison.relative.value):
        numbers += f", {comparison.relative.value:+.1%}"
    # None where a side is 0 in all texts.
    if math.isfinite(comparison.relative.low + comparison.relative.high):
        numbers += f" {bracketed(comparison.relative.low, comparison.relative.high, '+.1%')}"
    words = {
        "higher": f"{name} is higher ({numbers})",
        "lower": f"{name} is lower ({numbers})",
        "too few documents": f"{name} {numbers}; {comparison.documents} documents are too few "
        "for a verdict",
    }.get(comparison.verdict, f"no difference in {name} is shown ({numbers})")
    drafts = f"{comparison.draft.capitalize()} against {comparison.against}"
    return f"{drafts} at T = {comparison.temperature:g}{gamma}: {words}."


def _configuration(comparison: DraftComparison) -> str:
    """The gamma, and the method unless it is the standard method."""
    return (
        str(comparison.gamma)
        if comparison.method in (None, "standard")
        else f"{comparison.gamma} ({comparison.method})"
    )


def served_cautions(
    cells: Sequence[Cell],
    baseline: Sequence[Baseline],
    divergences: Sequence[GreedyDivergence],
    documents: int,
    standard: Collection[str],
) -> list[str]:
    """Cautions about the methods that engines run, whose names are in `standard`."""
    return cautions(
        [record for record in cells if record.method in standard],
        baseline,
        [record for record in divergences if record.method in standard],
        documents,
    )


def _limits(cells: Sequence[Cell]) -> list[str]:
    """Drafts that cannot be faster with any training."""
    sentences = []
    for draft in dict.fromkeys(cell.draft for cell in cells):
        of_draft = [cell for cell in cells if cell.draft == draft]
        known = [
            cell.perfect_draft_cap for cell in of_draft if math.isfinite(cell.perfect_draft_cap)
        ]
        # Without a known cap nothing is claimed.
        cap = max(known, default=math.inf)
        if cap < 1.0:
            sentences.append(
                f"Even a perfect {draft} draft would be slower than autoregressive decoding on "
                f"this machine (cap {cap:.2f}x): a smaller draft is needed, not a better draft."
            )
    return sentences


def cautions(
    cells: Sequence[Cell],
    baseline: Sequence[Baseline],
    divergences: Sequence[GreedyDivergence],
    documents: int,
) -> list[str]:
    """Reasons to doubt the numbers of these cells, which may be a part of an evaluation's cells."""
    sentences = []
    # nan compares as False: a cell without a prediction is left out.
    short = [cell for cell in cells if cell.measured_over_predicted < _PREDICTION_FLOOR]
    if short:
        worst = min(cell.measured_over_predicted for cell in short)
        sentences.append(
            f"{len(short)} of {len(cells)} cells reach less than {_PREDICTION_FLOOR:.0%} of their "
            f"predicted speed-up (lowest {worst:.0%}): the cost model misses part of the time."
        )
    spread = max((line.step_spread for line in baseline), default=0.0)
    if spread > _QUIET:
        sentences.append(
            "The machine was not quiet while single steps were timed (quartiles up to "
            f"{spread:.0%} of a median apart): c, v and the predictions are imprecise."
        )
    if cells and documents < intervals.FEWEST:
        sentences.append(
            f"The {cells[0].prompts} prompts come from {documents} documents. A verdict needs at "
            f"least {intervals.FEWEST}, so none is given: raise prompts.count in the suite, or "
            "hold out more documents."
        )
    for line in baseline:
        if line.repeated_ngram_share is not None and line.repeated_ngram_share > _LOOPING:
            sentences.append(
                f"At T = {line.temperature:g}, {line.repeated_ngram_share:.0%} of the 4-grams "
                "occurred before: the target loops, which makes alpha and tau too high."
            )
    if divergences:
        texts = {(d.prompt_key, d.position) for d in divergences}
        widest = max(d.gap for d in divergences)
        sentences.append(
            f"At T = 0, {len(divergences)} of the speculative texts differ from the "
            f"baseline's at {len(texts)} positions. There, the target's logits of "
            f"the two tokens are at most {known(widest, '.3g')} below the highest."
        )
        if third := sum(not d.are_top_two for d in divergences):
            sentences.append(
                f"{third} of them have a token that is not among the target's top two: a near-tie "
                "does not explain this. Please report it."
            )
    return sentences

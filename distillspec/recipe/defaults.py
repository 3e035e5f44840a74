"""What a recipe minimises, and on which text, where it does not say so.

The best that was measured at equal wall-clock (docs/explanation/earlier-measurements.md) is JSD on
text of draft and target, in entire batches by turns. A pair or an objective that rules this out
gets the nearest choice that it allows, so that a recipe of a pair and data alone is valid for every
kind of pair.
"""

from __future__ import annotations

from typing import Any

_BEST = {"draft": 0.5, "target": 0.5, "per": "batch"}
_OF_TARGET = {"target": 1.0}
_OF_DRAFT = {"draft": 1.0}
_OF_DATA = {"fixed": 1.0}


def with_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe as it was read, with `distill.divergence` and `distill.source` where they lack.

    Args:
        recipe: Not yet checked: a section may be missing or be anything.

    Returns:
        The recipe itself where it gives both, or where `distill` is no section.
    """
    distill = recipe.get("distill", {})
    if not isinstance(distill, dict) or {"divergence", "source"} <= distill.keys():
        return recipe
    distill = with_last_phase(distill)
    if {"divergence", "source"} <= distill.keys():
        return {**recipe, "distill": distill}
    pair, hardware = _section(recipe, "pair"), _section(recipe, "hardware")
    is_endpoint = pair.get("endpoint") is not None
    divergence = distill.get("divergence", "nll" if is_endpoint else "jsd")
    losses = [divergence] if divergence != "mix" else list(_section(distill, "mix"))
    source: dict[str, Any]
    if "tvd_plus" in losses:
        # The reward of tvd_plus needs tokens that the draft has drawn.
        source = _OF_DRAFT
    elif hardware.get("shard_target") is True:
        # A sharded target writes no text.
        source = _OF_DATA if "nll" in losses else _OF_DRAFT
    elif (
        is_endpoint
        or pair.get("tokenizers") == "cross-tokenizer"
        or "nll" in losses
        or _section(distill, "target_logits").get("kind") == "cached"
        or ("block_efficiency" in losses and distill.get("block_form") == "drawn")
    ):
        # These need text that is known before training, or that the target has drawn.
        source = _OF_TARGET
    else:
        source = _BEST
    return {**recipe, "distill": {"divergence": divergence, "source": source, **distill}}


def with_last_phase(distill: Any) -> Any:
    """The section `distill` with what every phase of its schedule sets, if it does not set it.

    The value is that of the last phase. So a resolved recipe has no value that nothing reads.

    Args:
        distill: Not yet checked.
    """
    schedule = distill.get("schedule") if isinstance(distill, dict) else None
    if not isinstance(schedule, list | tuple) or not schedule:
        return distill
    if not all(isinstance(phase, dict) for phase in schedule):
        return distill
    shared = {
        name: schedule[-1][name]
        for name in ("divergence", "mix", "source", "target_logits")
        if all(phase.get(name) is not None for phase in schedule)
    }
    return {**shared, **distill}


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}

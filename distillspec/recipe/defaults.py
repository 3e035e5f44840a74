"""What a recipe minimises, and on which text, where it does not say so.

The defaults were within 1 % of the best at equal wall-clock, on a far and on a close draft
(`drift-far` and `drift-none` in `docs/explanation/results.md`):

- Text of the target, sampled once and stored.
- Forward KL while the draft is far from the target, then JSD. A draft that is close learns from its
  own text too. The probe at step 0 decides: a close draft skips the first phases.
- Cached top-k logits where the steps read each text at least twice.

A pair or an objective that rules a default out gets the nearest choice that it allows. So a recipe
of a pair and data alone is valid for every kind of pair.
"""

from __future__ import annotations

from typing import Any

from distillspec.recipe.schema import Recipe
from distillspec.recipe.target_logits import CachedTargetConfig

CLOSE_ALPHA = 0.65
"""From this alpha on, the draft is close. Forward KL was better on a pair whose training ended at
alpha 0.53, and JSD on text of both on a pair that began at 0.76. The value lies between them."""

_BOTH = {"draft": 0.5, "target": 0.5, "per": "batch"}
_FIRST = {"share": 0.6, "divergence": "forward_kl", "until_alpha": CLOSE_ALPHA}
_SCHEDULE: tuple[dict[str, Any], ...] = (
    _FIRST,
    {"share": 0.3, "divergence": "jsd", "until_alpha": CLOSE_ALPHA},
    {"share": 0.1, "divergence": "jsd", "source": _BOTH},
)
_FEWEST_STEPS = 10  # each phase needs one
# For a draft that writes no text.
_SCHEDULE_ON_STORED: tuple[dict[str, Any], ...] = (_FIRST, {"share": 0.4, "divergence": "jsd"})
_OBJECTIVE = ("divergence", "jsd_weight", "mix", "source", "schedule", "select")
_SERVED_BY_TOP_K = {"forward_kl", "jsd", "tvd", "lk_alpha", "lk_lambda"}
_VISITS_THAT_PAY = 2


def with_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe as it was read, with what `distill` lacks of objective and text.

    Args:
        recipe: Not yet checked: a section may be missing or be anything.

    Returns:
        The recipe itself where it lacks neither, or where `distill` is no section.
    """
    given = recipe.get("distill", {})
    if not isinstance(given, dict):
        return recipe
    distill = with_last_phase(given)
    if _takes_schedule(recipe, distill):
        crosses = _section(recipe, "pair").get("tokenizers") == "cross-tokenizer"
        schedule = _SCHEDULE_ON_STORED if crosses else _SCHEDULE
        distill = with_last_phase({"schedule": [dict(phase) for phase in schedule], **distill})
    is_endpoint = _section(recipe, "pair").get("endpoint") is not None
    divergence = distill.get("divergence", "nll" if is_endpoint else "jsd")
    distill = {"divergence": divergence, "source": _source(recipe, distill, divergence), **distill}
    return recipe if distill == given else {**recipe, "distill": distill}


def _takes_schedule(recipe: dict[str, Any], distill: dict[str, Any]) -> bool:
    """Whether the recipe names no objective and no text, and the target can write the text."""
    steps = distill.get("max_steps", _FEWEST_STEPS)
    return (
        not any(name in distill for name in _OBJECTIVE)
        and not (isinstance(steps, int) and steps < _FEWEST_STEPS)
        and _section(recipe, "pair").get("endpoint") is None
        and _section(recipe, "hardware").get("shard_target") is not True
    )


def _source(recipe: dict[str, Any], distill: dict[str, Any], divergence: Any) -> dict[str, Any]:
    """The text to learn from, for a recipe that does not name it."""
    losses = [divergence] if divergence != "mix" else list(_section(distill, "mix"))
    if "tvd_plus" in losses:
        # The reward of tvd_plus needs tokens that the draft has drawn.
        return {"draft": 1.0}
    if _section(recipe, "hardware").get("shard_target") is True:
        # A sharded target writes no text.
        return {"fixed": 1.0} if "nll" in losses else {"draft": 1.0}
    return {"target": 1.0}


def with_cached_logits(recipe: Recipe) -> Recipe:
    """A checked recipe with cached top-k logits, where they pay and it says nothing of them.

    They pay where `max_steps` reads each stored text at least twice: making the cache costs about
    what the target's forwards of one epoch cost. Before the data is read, only `data.max_prompts`
    bounds how many texts there are. What `max_minutes` allows is not known before training.
    """
    distill, prompts = recipe.distill, recipe.data.max_prompts
    says = "target_logits" in distill.model_fields_set or any(
        phase.target_logits is not None for phase in distill.schedule
    )
    if says or prompts is None or recipe.hardware.shard_target:
        return recipe
    for phase in distill.phases:
        shares, stored = phase.source.of, phase.source.stored
        has_batches = bool(stored) and phase.source.per == "batch"
        if (
            (shares != stored and not has_batches)
            or not set(phase.terms) <= _SERVED_BY_TOP_K
            or phase.select is not None
        ):
            return recipe
    rows = sum(distill.stored.values()) * distill.max_steps * distill.batch_size
    if rows < _VISITS_THAT_PAY * prompts:
        return recipe
    cached = distill.model_copy(update={"target_logits": CachedTargetConfig(kind="cached")})
    return recipe.model_copy(update={"distill": cached})


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

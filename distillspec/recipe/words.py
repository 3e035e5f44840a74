"""A recipe in one line: objective, source of text, temperature and length of its training."""

from __future__ import annotations

from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.schema import Recipe


def plan_in_words(recipe: Recipe) -> str:
    """One line: objective, source of text, temperature, length."""
    plan = recipe.distill
    lengths = [f" ({length} of the run)" for length in plan.phase_lengths_in_words] or [""]
    phases = ", then ".join(
        _phase_in_words(phase) + length for phase, length in zip(plan.phases, lengths, strict=True)
    )
    # A run that is ended by its minutes has a very large number of steps.
    steps = f"{plan.max_steps} steps" if plan.max_steps < 1_000_000 else ""
    minutes = f"{plan.max_minutes:.3g} minutes" if plan.max_minutes else ""
    muon = ", by Muon" if recipe.optimizer.kind == "muon" else ""
    return (
        f"{phases}, temperature {plan.temperature:g}, "
        f"batches of {plan.batch_size}, at most {' or '.join(filter(None, (steps, minutes)))}"
        f"{muon}"
    )


def _phase_in_words(plan: DistillConfig) -> str:
    shares = [f"{share:.0%} {name}" for name, share in plan.source.of.items()]
    if plan.source.per != "sequence":
        shares[-1] += f" by the {plan.source.per}"
    text = "responses and their prompts" if plan.on_prompts else "responses"
    signal = plan.cached_logits
    kept = f" against the target's {signal.k} most probable tokens and the rest" if signal else ""
    if kept and plan.source.of != plan.source.stored:
        kept += " (of stored text)"
    return f"{plan.loss_in_words}{kept} on {', '.join(shares)} {text}"

"""AdamW and its schedule: decay on matrices only, linear warm-up, cosine over the whole run."""

from __future__ import annotations

import math

import torch
from torch import nn

from distillspec.recipe.schema import Distill, Optimizer


def adamw(draft: nn.Module, plan: Optimizer) -> torch.optim.AdamW:
    """AdamW over the trainable weights; norms and biases are not decayed."""
    trainable = [parameter for parameter in draft.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=plan.learning_rate,
        betas=plan.betas,
        fused=True,
    )


def share_done(step: int, elapsed_seconds: float, distill: Distill) -> float:
    """Share of the run behind us in [0, 1]: by steps or by training time, whichever is further."""
    by_steps = step / distill.max_steps
    by_time = elapsed_seconds / (60.0 * distill.max_minutes) if distill.max_minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def learning_rate(step: int, done: float, plan: Optimizer) -> float:
    """Rate of the update after `step` finished ones, with `done` of the run behind us.

    Warm-up goes by steps, the cosine by the share done: from the peak to final_rate_share of it.
    """
    rising = min(1.0, (step + 1) / max(1, plan.warmup_steps))
    cosine = 0.5 * (1.0 + math.cos(math.pi * done))
    falling = plan.final_rate_share + (1.0 - plan.final_rate_share) * cosine
    return plan.learning_rate * rising * falling

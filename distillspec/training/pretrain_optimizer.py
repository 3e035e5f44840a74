"""The optimizers of pretraining, and the schedule of their rates."""

from __future__ import annotations

import torch
from torch import nn

from distillspec.recipe.pretraining import PretrainConfig
from distillspec.training.optimizer import vocabulary_weights


def rate_share(step: int, plan: PretrainConfig) -> float:
    """Share of the peak rate at `step` (from 0): warm-up, constant 1, linear decay to the end."""
    rising = min(1.0, (step + 1) / max(1, plan.warmup_steps))
    decay_steps = plan.decay_share * plan.max_steps
    falling = min(1.0, (plan.max_steps - step) / decay_steps) if decay_steps else 1.0
    return rising * max(plan.final_rate_share, falling)


def optimizers(model: nn.Module, plan: PretrainConfig) -> list[torch.optim.Optimizer]:
    """Muon on the hidden matrices, AdamW on embeddings, head and norms; or AdamW on everything."""
    tables = {id(weight) for weight in vocabulary_weights(model)}
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in tables]
    remaining = [p for p in model.parameters() if p.ndim != 2 or id(p) in tables]
    of_matrices: torch.optim.Optimizer
    if plan.optimizer == "adamw":
        of_matrices = _adamw(matrices, plan, weight_decay=plan.weight_decay)
    else:
        of_matrices = torch.optim.Muon(
            [{"params": matrices, "peak": plan.matrix_rate}],
            lr=plan.matrix_rate,
            weight_decay=plan.weight_decay,
            adjust_lr_fn="original",
        )
    return [of_matrices, _adamw(remaining, plan, weight_decay=0.0)]


def _adamw(
    weights: list[nn.Parameter], plan: PretrainConfig, *, weight_decay: float
) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        [{"params": weights, "peak": plan.other_rate}],
        lr=plan.other_rate,
        betas=(0.9, 0.95),
        weight_decay=weight_decay,
        fused=True,
    )

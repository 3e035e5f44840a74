"""AdamW or Muon, and their schedule: linear warm-up, cosine over the whole run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from distillspec.models.hidden import causal_model
from distillspec.recipe.schema import Distill, Optimizer


def optimizers(draft: nn.Module, plan: Optimizer) -> list[torch.optim.Optimizer]:
    """What trains the trainable weights; norms and biases are not decayed.

    muon: the update of each hidden matrix is orthogonal (Keller Jordan's), scaled to the size that
    AdamW's would have (Moonlight, 2502.16982), so that both go by one rate; embeddings, output
    weights and vectors stay with AdamW.
    """
    trainable = [parameter for parameter in draft.parameters() if parameter.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2]
    vectors = [p for p in trainable if p.ndim < 2]
    if plan.kind == "adamw":
        return [_adamw(matrices, vectors, plan)]
    ends = {id(weight) for weight in vocabulary_weights(draft)}
    hidden = [p for p in matrices if p.ndim == 2 and id(p) not in ends]
    others = [p for p in matrices if p.ndim != 2 or id(p) in ends]
    found: list[torch.optim.Optimizer] = []
    if hidden:
        found.append(
            torch.optim.Muon(
                hidden,
                lr=plan.learning_rate,
                weight_decay=plan.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if others or vectors:
        found.append(_adamw(others, vectors, plan))
    return found


def _adamw(
    matrices: list[nn.Parameter], vectors: list[nn.Parameter], plan: Optimizer
) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=plan.learning_rate,
        betas=plan.betas,
        fused=True,
    )


def vocabulary_weights(draft: nn.Module) -> list[Tensor]:
    """Weights with a row per token or per position: of embeddings and of the output head."""
    tables = [module.weight for module in draft.modules() if isinstance(module, nn.Embedding)]
    head = causal_model(draft).get_output_embeddings()
    return [*tables, *(head.parameters() if head is not None else [])]


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

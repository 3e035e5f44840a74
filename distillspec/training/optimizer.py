"""AdamW or Muon, and their schedule: linear warm-up, cosine over the whole run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from distillspec.models.bare import bare_model
from distillspec.models.surgery.trainable import stacks
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.schema import OptimizerConfig


def optimizers(draft: nn.Module, plan: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """What trains the trainable weights; norms and biases are not decayed.

    muon: the update of each hidden matrix is orthogonal (Keller Jordan's), scaled to the size that
    AdamW's would have (Moonlight, 2502.16982), so that both go by one rate; embeddings, output
    weights and vectors stay with AdamW.
    """
    shares = rate_shares(draft, plan.layer_decay)
    trainable = [parameter for parameter in draft.parameters() if parameter.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2]
    vectors = [p for p in trainable if p.ndim < 2]
    if plan.kind == "adamw":
        return [_adamw(matrices, vectors, plan, shares)]
    ends = {id(weight) for weight in vocabulary_weights(draft)}
    hidden = [p for p in matrices if p.ndim == 2 and id(p) not in ends]
    others = [p for p in matrices if p.ndim != 2 or id(p) in ends]
    found: list[torch.optim.Optimizer] = []
    if hidden:
        found.append(
            torch.optim.Muon(
                _groups(hidden, plan.weight_decay, shares),
                lr=plan.learning_rate,
                weight_decay=plan.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if others or vectors:
        found.append(_adamw(others, vectors, plan, shares))
    return found


def _adamw(
    matrices: list[nn.Parameter],
    vectors: list[nn.Parameter],
    plan: OptimizerConfig,
    shares: Mapping[int, float],
) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        _groups(matrices, plan.weight_decay, shares) + _groups(vectors, 0.0, shares),
        lr=plan.learning_rate,
        betas=plan.betas,
        fused=True,
    )


def _groups(
    parameters: Sequence[nn.Parameter], weight_decay: float, shares: Mapping[int, float]
) -> list[dict[str, Any]]:
    """A group for each share of the rate."""
    by_share: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        by_share.setdefault(shares.get(id(parameter), 1.0), []).append(parameter)
    return [
        {"params": some, "weight_decay": weight_decay, "rate_share": share}
        for share, some in by_share.items()
    ]


def rate_shares(draft: nn.Module, layer_decay: float) -> dict[int, float]:
    """Of parameters (by id), the share of the rate, where that is below 1.

    layer_decay^n, n layers below the output: 1 for the last layer, and one more than there are
    layers for the embeddings, unless the output head shares them. An encoder lies below its
    decoder.
    """
    if layer_decay == 1.0:
        return {}
    layers = list(chain.from_iterable(stacks(draft)))
    shares = {
        id(parameter): layer_decay ** (len(layers) - place)
        for place, layer in enumerate(layers)
        for parameter in layer.parameters()
    }
    bare = bare_model(draft)
    head = bare.get_output_embeddings()
    shared = {id(p) for p in head.parameters()} if head is not None else set()
    for module in bare.base_model.modules():
        if isinstance(module, nn.Embedding) and id(module.weight) not in shared | shares.keys():
            shares[id(module.weight)] = layer_decay ** (len(layers) + 1)
    return shares


def vocabulary_weights(draft: nn.Module) -> list[Tensor]:
    """Weights with a row per token or per position: of embeddings and of the output head."""
    tables = [module.weight for module in draft.modules() if isinstance(module, nn.Embedding)]
    head = bare_model(draft).get_output_embeddings()
    return [*tables, *(head.parameters() if head is not None else [])]


def share_done(step: int, elapsed_seconds: float, distill: DistillConfig) -> float:
    """Share of the run behind us in [0, 1]: by steps or by training time, whichever is further."""
    by_steps = step / distill.max_steps
    by_time = elapsed_seconds / (60.0 * distill.max_minutes) if distill.max_minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def learning_rate(step: int, done: float, plan: OptimizerConfig) -> float:
    """Rate of the update after `step` finished ones, with `done` of the run behind us.

    Warm-up goes by steps, the cosine by the share done: from the peak to final_rate_share of it.
    """
    rising = min(1.0, (step + 1) / max(1, plan.warmup_steps))
    cosine = 0.5 * (1.0 + math.cos(math.pi * done))
    falling = plan.final_rate_share + (1.0 - plan.final_rate_share) * cosine
    return plan.learning_rate * rising * falling

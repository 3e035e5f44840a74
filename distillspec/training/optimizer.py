"""AdamW or Muon, and their schedule: linear warm-up, then a cosine over the entire run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from distillspec.models.bare import bare_model
from distillspec.models.surgery.trainable import layer_lists
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.schema import OptimizerConfig


def optimizers(draft: nn.Module, plan: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of the trainable weights, without weight decay on norms and biases.

    "muon" gives each hidden matrix an orthogonal update (Keller Jordan). The update is scaled to
    the size of AdamW's (Moonlight, 2502.16982), so that both share one learning rate. Embeddings,
    output weights and vectors stay with AdamW.
    """
    shares = rate_shares(draft, plan.layer_decay)
    trainable = [parameter for parameter in draft.parameters() if parameter.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2]
    vectors = [p for p in trainable if p.ndim < 2]
    if plan.kind == "adamw":
        return [_adamw(matrices, vectors, plan, shares)]
    # Muon orthogonalises matrices between hidden states; a table of tokens is no such matrix.
    tables = {id(weight) for weight in vocabulary_weights(draft)}
    hidden = [p for p in matrices if p.ndim == 2 and id(p) not in tables]
    remaining = [p for p in matrices if p.ndim != 2 or id(p) in tables]
    chosen: list[torch.optim.Optimizer] = []
    # An optimizer refuses an empty list of parameters.
    if hidden:
        chosen.append(
            torch.optim.Muon(
                _groups(hidden, plan.weight_decay, shares),
                lr=plan.learning_rate,
                weight_decay=plan.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if remaining or vectors:
        chosen.append(_adamw(remaining, vectors, plan, shares))
    return chosen


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
    """One parameter group for each share of the learning rate."""
    by_share: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        by_share.setdefault(shares.get(id(parameter), 1.0), []).append(parameter)
    return [
        {"params": members, "weight_decay": weight_decay, "rate_share": share}
        for share, members in by_share.items()
    ]


def rate_shares(draft: nn.Module, layer_decay: float) -> dict[int, float]:
    """The share of the learning rate of each parameter that layer decay slows down.

    The share is layer_decay^n for a layer n layers below the output head, so n is 1 for the last
    layer. Embeddings are below the first layer, unless the output head shares their weight. An
    encoder is below its decoder.

    Returns:
        Share by the id of the parameter; parameters without an entry have the share 1.
    """
    if layer_decay == 1.0:
        return {}
    layers = list(chain.from_iterable(layer_lists(draft)))
    shares = {
        id(parameter): layer_decay ** (len(layers) - depth)
        for depth, layer in enumerate(layers)
        for parameter in layer.parameters()
    }
    bare = bare_model(draft)
    head = bare.get_output_embeddings()
    shared = {id(p) for p in head.parameters()} if head is not None else set()
    # A tied embedding trains at the rate of the head.
    for module in bare.base_model.modules():
        if isinstance(module, nn.Embedding) and id(module.weight) not in shared | shares.keys():
            shares[id(module.weight)] = layer_decay ** (len(layers) + 1)
    return shares


def vocabulary_weights(draft: nn.Module) -> list[Tensor]:
    """Weights with one row per token or position: those of embeddings and of the output head."""
    tables = [module.weight for module in draft.modules() if isinstance(module, nn.Embedding)]
    head = bare_model(draft).get_output_embeddings()
    return [*tables, *(head.parameters() if head is not None else [])]


def share_done(step: int, elapsed_seconds: float, distill: DistillConfig) -> float:
    """The part of the run that is done, in [0, 1]: the larger of steps and training time.

    Args:
        step: Steps done.
        elapsed_seconds: Training time.
        distill: Its max_steps and max_minutes are the entire run.
    """
    by_steps = step / distill.max_steps
    by_time = elapsed_seconds / (60.0 * distill.max_minutes) if distill.max_minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def learning_rate(step: int, done: float, plan: OptimizerConfig) -> float:
    """The learning rate of the next update.

    The warm-up depends on steps. The cosine depends on the share done, and falls from the peak to
    final_rate_share of it.

    Args:
        step: Steps done.
        done: Result of `share_done`, in [0, 1].
        plan: Peak rate and schedule.
    """
    rising = min(1.0, (step + 1) / max(1, plan.warmup_steps))
    cosine = 0.5 * (1.0 + math.cos(math.pi * done))
    falling = plan.final_rate_share + (1.0 - plan.final_rate_share) * cosine
    return plan.learning_rate * rising * falling

"""A check for finite weights, before a checkpoint or a probe uses them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@torch.no_grad()
def all_finite(model: nn.Module) -> bool:
    """Whether every trained weight on this process is finite.

    A process holds only a part of sharded weights. The caller combines the answers of all
    processes.
    """
    extremes = [
        extreme
        for weight in model.parameters()
        if weight.requires_grad and (part := _own(weight)).numel()
        for extreme in part.aminmax()  # NaN if any weight is NaN; makes no copy of the weights
    ]
    return not extremes or bool(torch.stack(extremes).isfinite().all())


def _own(weight: Tensor) -> Tensor:
    """The part of `weight` that this process holds."""
    if isinstance(weight, DTensor):
        return weight.to_local()
    part = getattr(weight, "ds_tensor", None)  # DeepSpeed's part of a ZeRO-3 partition
    return weight if part is None else part

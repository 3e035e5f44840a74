"""Whether an update has left weights that can be used, asked before they are saved or probed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@torch.no_grad()
def all_finite(model: nn.Module) -> bool:
    """Whether every trained weight is finite, of those that this process holds.

    Of sharded weights that is a part: all processes ask, and agree on the answer.
    """
    ends = [
        end
        for weight in model.parameters()
        if weight.requires_grad and (part := _own(weight)).numel()
        for end in part.aminmax()  # NaN where any is; no copy of the weights
    ]
    return not ends or bool(torch.stack(ends).isfinite().all())


def _own(weight: Tensor) -> Tensor:
    if isinstance(weight, DTensor):
        return weight.to_local()
    part = getattr(weight, "ds_tensor", None)  # DeepSpeed's part of a ZeRO-3 partition
    return weight if part is None else part

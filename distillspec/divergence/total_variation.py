"""Total variation distance, which is one minus the acceptance rate."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.divergence.distribution import (
    Distribution,
    ValueAndGradient,
    at_least_float32,
)


def total_variation(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """1/2 sum_v |p_v - q_v| = 1 - alpha.

    Args:
        p_logits: The target's logits, shape [..., V].
        q_logits: The draft's logits, shape [..., V].

    Returns:
        Shape [...], in [0, 1], dimensionless.
    """
    p = torch.softmax(at_least_float32(p_logits), -1)
    q = torch.softmax(at_least_float32(q_logits), -1)
    return 0.5 * (p - q).abs().sum(-1)


def fused_total_variation(p: Distribution, q: Distribution, out: Tensor) -> ValueAndGradient:
    """Value, and gradient q_j (s_j - sum_i q_i s_i) with s = sign(q - p) / 2, written into `out`.

    The subgradient at q = p is 0.
    """
    difference = torch.sub(q.probability, p.probability, out=out)
    value = 0.5 * difference.abs().sum(-1)
    # The value is summed already, so the signs may overwrite the difference.
    sign = difference.sign_()
    mean_sign = (sign * q.probability).sum(-1, keepdim=True)
    return ValueAndGradient(value, sign.sub_(mean_sign).mul_(q.probability).mul_(0.5))

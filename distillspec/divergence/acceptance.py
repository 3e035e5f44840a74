"""The acceptance rate alpha of standard speculative decoding, per context."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.divergence.distribution import at_least_float32


def acceptance(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """The probability that a token drawn from q is accepted against p: sum_v min(p_v, q_v).

    Args:
        p_logits: The target's logits, shape [..., V].
        q_logits: The draft's logits, shape [..., V].

    Returns:
        alpha, shape [...], in [0, 1], dimensionless.

    Source: Leviathan et al. 2211.17192.
    """
    p = torch.softmax(at_least_float32(p_logits), -1)
    q = torch.softmax(at_least_float32(q_logits), -1)
    return torch.minimum(p, q).sum(-1)

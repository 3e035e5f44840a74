"""Negative log likelihood of given tokens: the objective of plain training."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.divergence.distribution import (
    Distribution,
    ValueAndGradient,
    at_least_float32,
)


def cross_entropy(q_logits: Tensor, tokens: Tensor) -> Tensor:
    """-log q(token).

    Args:
        q_logits: The draft's logits, shape [..., V].
        tokens: Long [...].

    Returns:
        Shape [...], in [0, inf], nats.
    """
    log_q = torch.log_softmax(at_least_float32(q_logits), -1)
    return -log_q.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def fused_cross_entropy(q: Distribution, tokens: Tensor, out: Tensor) -> ValueAndGradient:
    """Value, and gradient q - onehot(token).

    Args:
        q: The draft's distributions at N positions.
        tokens: Long [N].
        out: Buffer [N, V] that receives the gradient.
    """
    index = tokens.unsqueeze(-1)
    value = q.log_partition - q.logits.gather(-1, index).squeeze(-1)
    gradient = out.copy_(q.probability)
    gradient.scatter_add_(-1, index, gradient.new_full((1, 1), -1.0).expand_as(index))
    return ValueAndGradient(value, gradient)

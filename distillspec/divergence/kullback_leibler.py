"""Kullback-Leibler divergence in both directions and its gradient in the draft's logits."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.divergence.distribution import (
    Distribution,
    ValueAndGradient,
    at_least_float32,
    without_impossible,
)


def forward_kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p || q) = sum_v p_v log(p_v / q_v).

    Tokens of probability 0 in p count 0. A token of probability 0 in q alone makes it infinite.

    Args:
        p_logits: The target's logits, shape [..., V].
        q_logits: The draft's logits, shape [..., V].

    Returns:
        Shape [...], in [0, inf], nats.
    """
    log_p = torch.log_softmax(at_least_float32(p_logits), -1)
    log_q = torch.log_softmax(at_least_float32(q_logits), -1)
    return expectation_of_log_ratio(log_p, log_q)


def reverse_kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(q || p) = sum_v q_v log(q_v / p_v).

    Args:
        p_logits: The target's logits, shape [..., V].
        q_logits: The draft's logits, shape [..., V].

    Returns:
        Shape [...], in [0, inf], nats.
    """
    log_p = torch.log_softmax(at_least_float32(p_logits), -1)
    log_q = torch.log_softmax(at_least_float32(q_logits), -1)
    return expectation_of_log_ratio(log_q, log_p)


def expectation_of_log_ratio(log_a: Tensor, log_b: Tensor) -> Tensor:
    """sum_v a_v log(a_v / b_v), with 0 log 0 = 0.

    The ratio of an impossible token is replaced before the product, so that neither value nor
    gradient becomes NaN.

    Args:
        log_a: Log-probabilities of a, shape [..., V].
        log_b: Log-probabilities of b, shape [..., V].

    Returns:
        Shape [...], nats.
    """
    a = log_a.exp()
    return (a * (log_a - log_b).masked_fill(a == 0, 0.0)).sum(-1)


def fused_forward_kl(p: Distribution, q: Distribution, out: Tensor) -> ValueAndGradient:
    """Value, and gradient q - p, written into `out` [N, V].

    With logits z and partitions Z, KL(p || q) = sum p (z_p - z_q) - log Z_p + log Z_q.
    """
    terms = torch.sub(p.logits, q.logits, out=out).mul_(p.probability)
    value = without_impossible(terms).sum(-1) - p.log_partition + q.log_partition
    # The value is summed already, so the gradient may overwrite its terms.
    return ValueAndGradient(value, torch.sub(q.probability, p.probability, out=out))


def fused_reverse_kl(p: Distribution, q: Distribution, out: Tensor) -> ValueAndGradient:
    """Value, and gradient q_j (log(q_j / p_j) - KL(q || p)), written into `out` [N, V].

    Both partitions cancel in the gradient. With d = z_q - z_p it is q_j (d_j - sum_i q_i d_i).
    """
    terms = torch.sub(q.logits, p.logits, out=out).mul_(q.probability)
    mean = without_impossible(terms).sum(-1)
    value = mean - q.log_partition + p.log_partition
    return ValueAndGradient(value, terms.addcmul_(q.probability, mean.unsqueeze(-1), value=-1.0))

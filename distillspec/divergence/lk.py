"""LK losses: the likelihood of acceptance itself, alone or mixed with forward KL (2602.23881)."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.divergence.distribution import Distribution, ValueAndGradient
from distillspec.divergence.kullback_leibler import forward_kl, fused_forward_kl
from distillspec.divergence.total_variation import fused_total_variation, total_variation

LEAST_ALPHA = 1e-5
"""Below it -log alpha is told as -log of this, and its slope is the slope there."""


def lk_alpha(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """-log alpha, alpha = sum_v min(p_v, q_v): [..., V], [..., V] -> [...] in [0, 11.6], nats.

    The gradient is that of (1 - alpha) / max(alpha, 1e-5) with the denominator held fixed. A
    clamp inside the logarithm would have none just where the draft is cold.
    """
    distance = total_variation(p_logits, q_logits)
    alpha = _alpha(distance.detach())
    slope = distance / alpha
    return (slope - slope.detach()) - alpha.log()


def fused_lk_alpha(p: Distribution, q: Distribution, out: Tensor) -> ValueAndGradient:
    """Value, and the gradient of the total variation over alpha, written into `out` [N, V]."""
    distance, gradient = fused_total_variation(p, q, out)
    alpha = _alpha(distance)
    return ValueAndGradient(-alpha.log(), gradient.div_(alpha.unsqueeze(-1)))


def lk_lambda(p_logits: Tensor, q_logits: Tensor, *, eta: float) -> Tensor:
    """lam KL(p || q) + (1 - lam) (1 - alpha): [..., V], [..., V] -> [...] in [0, inf].

    lam = exp(-eta alpha) of each position, held fixed in the gradient: forward KL where the draft
    is cold, the acceptance itself where it is warm. eta: 3 is published; 0 is forward KL.
    """
    distance = total_variation(p_logits, q_logits)
    share = _share_of_kl(distance.detach(), eta)
    return share * forward_kl(p_logits, q_logits) + (1.0 - share) * distance


def fused_lk_lambda(
    p: Distribution, q: Distribution, out: Tensor, *, eta: float
) -> ValueAndGradient:
    """Value, and the same mixture of both gradients, written into `out` [N, V]."""
    distance, of_distance = fused_total_variation(p, q, torch.empty_like(out))
    nats, of_nats = fused_forward_kl(p, q, out)
    share = _share_of_kl(distance, eta)
    gradient = of_nats.mul_(share.unsqueeze(-1))
    gradient.addcmul_(of_distance, (1.0 - share).unsqueeze(-1))
    return ValueAndGradient(share * nats + (1.0 - share) * distance, gradient)


def _alpha(distance: Tensor) -> Tensor:
    return (1.0 - distance).clamp(min=LEAST_ALPHA)


def _share_of_kl(distance: Tensor, eta: float) -> Tensor:
    return (-eta * (1.0 - distance)).exp()

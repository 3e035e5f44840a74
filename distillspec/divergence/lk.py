"""LK losses: the likelihood of acceptance, alone or mixed with forward KL (2602.23881)."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.divergence.distribution import Distribution, ValueAndGradient
from distillspec.divergence.kullback_leibler import forward_kl, fused_forward_kl
from distillspec.divergence.total_variation import fused_total_variation, total_variation

LEAST_ALPHA = 1e-5
"""A smaller alpha counts as this value, in -log alpha and in its slope."""


def lk_alpha(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """-log alpha, with alpha = sum_v min(p_v, q_v).

    The gradient is that of (1 - alpha) / max(alpha, 1e-5) with the denominator held fixed. A
    clamp inside the logarithm would have no gradient where an untrained draft needs it.

    Args:
        p_logits: The target's logits, shape [..., V].
        q_logits: The draft's logits, shape [..., V].

    Returns:
        Shape [...], in [0, 11.6], nats.
    """
    distance = total_variation(p_logits, q_logits)
    alpha = _alpha(distance.detach())
    slope = distance / alpha
    # The bracket is 0 and carries the gradient; the logarithm is the value.
    return (slope - slope.detach()) - alpha.log()


def fused_lk_alpha(p: Distribution, q: Distribution, out: Tensor) -> ValueAndGradient:
    """Value, and the gradient of the total variation over alpha, written into `out` [N, V]."""
    distance, gradient = fused_total_variation(p, q, out)
    alpha = _alpha(distance)
    return ValueAndGradient(-alpha.log(), gradient.div_(alpha.unsqueeze(-1)))


def lk_lambda(p_logits: Tensor, q_logits: Tensor, *, eta: float) -> Tensor:
    """lam KL(p || q) + (1 - lam) (1 - alpha), with lam = exp(-eta alpha) of each position.

    lam is held fixed in the gradient. Forward KL dominates where alpha is low, the acceptance
    rate where alpha is high.

    Args:
        p_logits: The target's logits, shape [..., V].
        q_logits: The draft's logits, shape [..., V].
        eta: At least 0. The paper uses 3; 0 gives forward KL.

    Returns:
        Shape [...], in [0, inf]; a mixture of nats and a dimensionless part.
    """
    distance = total_variation(p_logits, q_logits)
    share = _share_of_kl(distance.detach(), eta)
    return share * forward_kl(p_logits, q_logits) + (1.0 - share) * distance


def fused_lk_lambda(
    p: Distribution, q: Distribution, out: Tensor, *, eta: float
) -> ValueAndGradient:
    """Value, and the mixture of both gradients, written into `out` [N, V]."""
    # Both gradients exist at once, so one of them needs its own buffer.
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

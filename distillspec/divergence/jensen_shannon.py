"""Generalised Jensen-Shannon divergence and its gradient in the draft's logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distillspec.divergence.distribution import (
    Distribution,
    ValueAndGradient,
    at_least_float32,
)
from distillspec.divergence.kullback_leibler import expectation_of_log_ratio


def jensen_shannon(p_logits: Tensor, q_logits: Tensor, jsd_weight: float) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m), with m = beta p + (1 - beta) q.

    At beta = 1/2 it is symmetric. Divided by beta it tends to KL(p || q) as beta -> 0; divided by
    1 - beta it tends to KL(q || p) as beta -> 1.

    Args:
        p_logits: The target's logits, shape [..., V].
        q_logits: The draft's logits, shape [..., V].
        jsd_weight: beta, the target's weight, in (0, 1).

    Returns:
        Shape [...], nats, from 0 to the entropy of (beta, 1 - beta): log 2 at beta = 1/2.

    Source: Agarwal et al. 2306.13649.
    """
    log_p = torch.log_softmax(at_least_float32(p_logits), -1)
    log_q = torch.log_softmax(at_least_float32(q_logits), -1)
    # Where both are impossible, logaddexp would have a NaN gradient.
    # Any finite value will do: the ratio of these tokens is masked later.
    impossible = log_p.isneginf() & log_q.isneginf()
    log_m = torch.logaddexp(
        log_p.masked_fill(impossible, 0.0) + math.log(jsd_weight),
        log_q.masked_fill(impossible, 0.0) + math.log1p(-jsd_weight),
    )
    from_target = expectation_of_log_ratio(log_p, log_m)
    from_draft = expectation_of_log_ratio(log_q, log_m)
    return jsd_weight * from_target + (1.0 - jsd_weight) * from_draft


def fused_jensen_shannon(
    p: Distribution, q: Distribution, out: Tensor, jsd_weight: float
) -> ValueAndGradient:
    """Value, and gradient (1 - beta) q_j (log(q_j / m_j) - KL(q || m)), written into `out` [N, V].

    The ratios to m are at most 1 / beta and 1 / (1 - beta). Both are clamped to the smallest normal
    number before division and logarithm, so a probability of 0 gives 0 and not NaN.
    """
    tiny = torch.finfo(out.dtype).tiny
    mixture = torch.lerp(q.probability, p.probability, jsd_weight).clamp_min_(tiny)
    terms = torch.div(p.probability, mixture, out=out).clamp_min_(tiny).log_()
    from_target = terms.mul_(p.probability).sum(-1)
    terms = torch.div(q.probability, mixture, out=out).clamp_min_(tiny).log_()
    from_draft = terms.mul_(q.probability).sum(-1)
    value = jsd_weight * from_target + (1.0 - jsd_weight) * from_draft
    # `terms` holds q log(q / m); the gradient subtracts q KL(q || m) from it.
    gradient = terms.addcmul_(q.probability, from_draft.unsqueeze(-1), value=-1.0)
    return ValueAndGradient(value, gradient.mul_(1.0 - jsd_weight))

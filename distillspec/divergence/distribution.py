"""A softmax in the forms that the analytic gradients need, at one exponential per logit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Distribution(NamedTuple):
    """p (or q) at N positions, with log p_v = logits_v - log_partition.

    Attributes:
        logits: z, [N, V], temperature applied. A logit of -inf is an impossible token.
        probability: softmax(z), [N, V]; rows sum to 1.
        log_partition: log sum exp z, [N], nats.
    """

    logits: Tensor
    probability: Tensor
    log_partition: Tensor


class ValueAndGradient(NamedTuple):
    """A divergence at N positions and its gradient in the draft's logits.

    Attributes:
        value: [N], nats or dimensionless.
        gradient: [N, V].
    """

    value: Tensor
    gradient: Tensor


def distribution(logits: Tensor, out: Tensor | None = None) -> Distribution:
    """The distributions of logits.

    The log partition comes from the most probable token: log sum exp z = max z - log max p. That
    saves a second pass of exponentials over [N, V]. A NaN in a row makes its log partition NaN.

    Args:
        logits: [N, V], temperature applied.
        out: Buffer [N, V] that receives the probabilities; None allocates one.
    """
    probability = torch.softmax(logits, -1) if out is None else torch.softmax(logits, -1, out=out)
    log_partition = logits.amax(-1) - probability.amax(-1).log()
    return Distribution(logits, probability, log_partition)


def at_least_float32(logits: Tensor) -> Tensor:
    """`logits` in float32, or in float64 if they are: the precision of every softmax here."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def without_impossible(products: Tensor) -> Tensor:
    """Set the terms x log(x / y) of impossible tokens to their limit 0, in place.

    Such a term is 0 * inf or 0 * NaN. An infinite term (x > 0 where y = 0) stays infinite.
    """
    # Without explicit infinities, nan_to_num would make infinite terms finite.
    return products.nan_to_num_(0.0, float("inf"), float("-inf"))

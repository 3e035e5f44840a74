"""A softmax kept in the forms that the analytic gradients need, with one exponential a logit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Distribution(NamedTuple):
    """p (or q) at N positions: logits z, probabilities softmax(z), and log sum exp z.

    log p_v = logits_v - log_partition. A logit of -inf is an impossible token, probability 0.
    """

    logits: Tensor  # [N, V], temperature applied
    probability: Tensor  # [N, V], rows sum to 1
    log_partition: Tensor  # [N], nats


class ValueAndGradient(NamedTuple):
    """A divergence at N positions and its gradient in the draft's logits."""

    value: Tensor  # [N], nats or dimensionless
    gradient: Tensor  # [N, V]


def distribution(logits: Tensor, out: Tensor | None = None) -> Distribution:
    """Logits [N, V] -> their distribution; the probabilities are written into `out` if given.

    The log partition comes from the likeliest token, log sum exp z = max z - log max p, which
    saves a second pass of exponentials over [N, V]. A NaN in a row makes its log partition NaN.
    """
    probability = torch.softmax(logits, -1) if out is None else torch.softmax(logits, -1, out=out)
    log_partition = logits.amax(-1) - probability.amax(-1).log()
    return Distribution(logits, probability, log_partition)


def at_least_float32(logits: Tensor) -> Tensor:
    """float32, or float64 if given: the precision of every softmax and logarithm here."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def without_impossible(products: Tensor) -> Tensor:
    """In place: terms x log(x / y) of impossible tokens (0 * inf or 0 * NaN) become their limit 0.

    An infinite term (x > 0 where y = 0) stays infinite.
    """
    return products.nan_to_num_(0.0, float("inf"), float("-inf"))

"""What a loss gives back: sums, to be added over chunks, batches and processes, divided once."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class DivergenceSums(NamedTuple):
    """Sums over the rows whose weight is not 0; the other rows are left out of all three."""

    divergence: Tensor
    """scalar, differentiable: sum of weight * divergence, nats (dimensionless for tvd)"""
    alpha: Tensor
    """scalar, detached: unweighted sum of sum_v min(p_v, q_v); NaN where there is no target"""
    tokens: Tensor
    """scalar, long: number of rows"""

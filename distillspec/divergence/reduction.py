"""What a loss gives back: sums, to be added over chunks, batches and processes, divided once."""

from __future__ import annotations

from collections.abc import Sequence
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

    def times(self, weight: float) -> DivergenceSums:
        """The same rows, whose divergence counts that much."""
        return self if weight == 1.0 else self._replace(divergence=weight * self.divergence)

    @staticmethod
    def added(parts: Sequence[DivergenceSums]) -> DivergenceSums:
        """Losses of the same rows: alpha and the number of rows are those of the first part."""
        total = parts[0].divergence
        for part in parts[1:]:
            total = total + part.divergence
        return parts[0]._replace(divergence=total)

"""The result of a loss: sums over chunks, batches and processes, which are divided once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class DivergenceSums(NamedTuple):
    """Sums over the rows whose weight is not 0.

    Attributes:
        divergence: Sum of weight * divergence, scalar, differentiable. In nats; dimensionless for
            tvd.
        alpha: Unweighted sum of sum_v min(p_v, q_v), scalar, detached. NaN without a target.
        tokens: Number of rows, long scalar.
    """

    divergence: Tensor
    alpha: Tensor
    tokens: Tensor

    def times(self, weight: float) -> DivergenceSums:
        """The same sums with the divergence multiplied by `weight`."""
        return self if weight == 1.0 else self._replace(divergence=weight * self.divergence)

    @staticmethod
    def added(parts: Sequence[DivergenceSums]) -> DivergenceSums:
        """The sum of several losses over the same rows.

        Alpha and the number of rows are those of the first loss.
        """
        total = parts[0].divergence
        for part in parts[1:]:
            total = total + part.divergence
        return parts[0]._replace(divergence=total)

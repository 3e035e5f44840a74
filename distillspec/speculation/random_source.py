"""Every random choice of decoding: from a generator in production, all branches in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_MASS = 2.0**50  # weights become integers that sum to about this: exact in float64


class RandomSource(Protocol):
    """Makes every random choice. Tests pass one that enumerates all outcomes."""

    def accept(self, probability: Tensor) -> Tensor:
        """Independent trials.

        Args:
            probability: Probability of True, shape [G], at least 0; above 1 it is always True.

        Returns:
            bool [G].
        """
        ...

    def draw(self, weights: Tensor) -> Tensor:
        """One token per row.

        Args:
            weights: Shape [V] or [B, V], at least 0; each row has a positive sum, not necessarily
                1.

        Returns:
            long [] or [B].
        """
        ...


class GeneratorSource:
    """Random choices from a `torch.Generator` on the device of the distributions.

    It copies nothing to the host, so a block of draws does not wait for the device.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def accept(self, probability: Tensor) -> Tensor:
        uniform = torch.rand(
            probability.shape,
            generator=self._generator,
            dtype=probability.dtype,
            device=probability.device,
        )
        return passes(uniform, probability)

    def draw(self, weights: Tensor) -> Tensor:
        # float64: the 2^24 uniforms of float32 are too coarse for rare tokens.
        uniform = torch.rand(
            weights.shape[:-1],
            generator=self._generator,
            dtype=torch.float64,
            device=weights.device,
        )
        return token_at(weights, uniform)


class RowSource:
    """A stream per row of a batch: what a row draws does not depend on the other rows."""

    def __init__(self, uniforms: Tensor) -> None:
        """Make streams from given numbers.

        Args:
            uniforms: float64 [B, n] in [0, 1), one for each draw of each row.
        """
        self._uniforms, self._drawn = uniforms, 0

    @classmethod
    def seeded(cls, seeds: Sequence[int], draws: int, device: torch.device) -> RowSource:
        """Streams of `draws` draws each. A seed gives the same stream on every device."""
        rows = [np.random.default_rng(seed).random(draws) for seed in seeds]
        return cls(torch.from_numpy(np.stack(rows)).to(device))

    def of(self, rows: Tensor) -> RowSource:
        """The streams of these rows (long [B']), from their present position on."""
        return RowSource(self._uniforms[rows.to(self._uniforms.device), self._drawn :])

    def accept(self, probability: Tensor) -> Tensor:
        """One trial per row: [B] -> bool [B]."""
        return passes(self._next(), probability)

    def draw(self, weights: Tensor) -> Tensor:
        """One token per row: [B, V] -> long [B]."""
        return token_at(weights, self._next())

    def _next(self) -> Tensor:
        self._drawn += 1
        return self._uniforms[:, self._drawn - 1]


def for_rows(random_source: RandomSource, rows: Tensor) -> RandomSource:
    """The source that draws for these rows of a batch from now on."""
    return random_source.of(rows) if isinstance(random_source, RowSource) else random_source


def passes(uniform: Tensor, probability: Tensor) -> Tensor:
    """Strictly below: a uniform of exactly 0 must not accept what has probability 0."""
    return uniform < probability


def token_at(weights: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative sums pass the share `uniform` of their total.

    A token of weight 0 has no width and is never returned, since the sums never fall. On a CPU they
    are formed in float64 in order. On other devices a scan adds in any order, so the sums are of
    integers: the weights' shares rounded down to multiples of 2^-50.

    Args:
        weights: Shape [..., V], at least 0.
        uniform: float64 [...] in [0, 1).

    Returns:
        long [...].
    """
    cumulative = _sums_in_order(weights) if weights.is_cpu else _sums_in_integers(weights)
    goal = uniform.unsqueeze(-1) * cumulative[..., -1:]  # < the total, as the uniform is < 1
    # right=True finds the first sum above the goal, which skips weights of 0.
    token = torch.searchsorted(cumulative, goal.to(cumulative.dtype), right=True)
    # NaN has no sums. Any token is fine, since `sampling.check_finite` raises later.
    return token.squeeze(-1).clamp_(max=weights.shape[-1] - 1)


def _sums_in_order(weights: Tensor) -> Tensor:
    return weights.cumsum(-1, dtype=torch.float64)


def _sums_in_integers(weights: Tensor) -> Tensor:
    scale = _MASS / weights.sum(-1, keepdim=True, dtype=torch.float64)
    return (weights * scale).to(torch.int64).cumsum_(-1)

"""Every random choice of decoding: a generator in production, every branch in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_MASS = 2.0**50  # weights become integers that sum to about this: exact in float64


class RandomSource(Protocol):
    def accept(self, probability: Tensor) -> Tensor:
        """Independent coins: [G] >= 0 -> bool [G], true with that probability; above 1, always."""
        ...

    def draw(self, weights: Tensor) -> Tensor:
        """One token a row: [V] or [B, V], >= 0, rows of any positive sum -> long [] or [B]."""
        ...


class GeneratorSource:
    """Chance from a `torch.Generator`, which lives on the device of the distributions.

    Nothing is copied to the host, so a block of draws runs through without waiting for the device.
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
        uniform = torch.rand(
            weights.shape[:-1],
            generator=self._generator,
            dtype=torch.float64,
            device=weights.device,
        )
        return token_at(weights, uniform)


class RowSource:
    """A stream for each row of a batch: what a row draws does not depend on the rows beside it."""

    def __init__(self, uniforms: Tensor) -> None:
        """uniforms: float64 [B, n] in [0, 1), one for each draw of each row."""
        self._uniforms, self._drawn = uniforms, 0

    @classmethod
    def seeded(cls, seeds: Sequence[int], draws: int, device: torch.device) -> RowSource:
        """Streams of so many draws; the same for one seed on every device."""
        rows = [np.random.default_rng(seed).random(draws) for seed in seeds]
        return cls(torch.from_numpy(np.stack(rows)).to(device))

    def of(self, rows: Tensor) -> RowSource:
        """The streams of these rows (long [B']), where they stand."""
        return RowSource(self._uniforms[rows.to(self._uniforms.device), self._drawn :])

    def accept(self, probability: Tensor) -> Tensor:
        """A coin for each row: [B] -> bool [B]."""
        return passes(self._next(), probability)

    def draw(self, weights: Tensor) -> Tensor:
        """A token for each row: [B, V] -> long [B]."""
        return token_at(weights, self._next())

    def _next(self) -> Tensor:
        self._drawn += 1
        return self._uniforms[:, self._drawn - 1]


def for_rows(chance: RandomSource, rows: Tensor) -> RandomSource:
    """What draws for these rows of a batch from now on."""
    return chance.of(rows) if isinstance(chance, RowSource) else chance


def passes(uniform: Tensor, probability: Tensor) -> Tensor:
    """Strictly below: a uniform of exactly 0 must not accept what has probability 0."""
    return uniform < probability


def token_at(weights: Tensor, uniform: Tensor) -> Tensor:
    """Inverse of the cumulative sums: [..., V] >= 0, float64 [...] in [0, 1) -> long [...].

    A token of weight 0 has no width and is never returned, since the sums never fall: on a CPU
    they are formed in float64 one after the other, elsewhere, where a scan adds in any order, in
    integers (the weights' shares rounded down to multiples of 2^-50).
    """
    cumulative = _sums_in_order(weights) if weights.is_cpu else _sums_in_integers(weights)
    goal = uniform.unsqueeze(-1) * cumulative[..., -1:]  # < the total, as the uniform is < 1
    found = torch.searchsorted(cumulative, goal.to(cumulative.dtype), right=True)
    # NaN has no sums: any token will do, since `sampling.check_finite` refuses it.
    return found.squeeze(-1).clamp_(max=weights.shape[-1] - 1)


def _sums_in_order(weights: Tensor) -> Tensor:
    return weights.cumsum(-1, dtype=torch.float64)


def _sums_in_integers(weights: Tensor) -> Tensor:
    scale = _MASS / weights.sum(-1, keepdim=True, dtype=torch.float64)
    return (weights * scale).to(torch.int64).cumsum_(-1)

"""Every random choice of decoding: a generator in production, every branch in tests."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_MASS = 2.0**50  # a distribution becomes integer weights that sum to about this: float64-exact


class Chance(Protocol):
    def accept(self, probability: Tensor) -> Tensor:
        """Independent coins: [G] in [0, 1] -> bool [G], true with that probability."""
        ...

    def draw(self, distribution: Tensor) -> Tensor:
        """One token a row: [V] or [B, V], rows sum to 1 -> long [] or [B]."""
        ...


class GeneratorChance:
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

    def draw(self, distribution: Tensor) -> Tensor:
        uniform = torch.rand(
            distribution.shape[:-1],
            generator=self._generator,
            dtype=torch.float64,
            device=distribution.device,
        )
        return token_at(distribution, uniform)


def passes(uniform: Tensor, probability: Tensor) -> Tensor:
    """Strictly below: a uniform of exactly 0 must not accept what has probability 0."""
    return uniform < probability


def token_at(distribution: Tensor, uniform: Tensor) -> Tensor:
    """Inverse of the cumulative distribution: [..., V], float64 [...] in [0, 1) -> long [...].

    The sums are formed in integers, so they are exact and monotone in any order of summation (a
    device's parallel scan included): a token of probability 0 has no width and is never returned.
    Probabilities are rounded down to multiples of 2^-50.
    """
    cumulative = (distribution * _MASS).to(torch.int64).cumsum_(-1)
    goal = (uniform.unsqueeze(-1) * cumulative[..., -1:]).to(torch.int64)  # < the total, as u < 1
    return torch.searchsorted(cumulative, goal, right=True).squeeze(-1)

"""Every random choice of decoding: a generator in production, every branch in tests."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_MASS = 2.0**50  # weights become integers that sum to about this: exact in float64


class Chance(Protocol):
    def accept(self, probability: Tensor) -> Tensor:
        """Independent coins: [G] >= 0 -> bool [G], true with that probability; above 1, always."""
        ...

    def draw(self, weights: Tensor) -> Tensor:
        """One token a row: [V] or [B, V], >= 0, rows of any positive sum -> long [] or [B]."""
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

    def draw(self, weights: Tensor) -> Tensor:
        uniform = torch.rand(
            weights.shape[:-1],
            generator=self._generator,
            dtype=torch.float64,
            device=weights.device,
        )
        return token_at(weights, uniform)


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
    return found.squeeze(-1)


def _sums_in_order(weights: Tensor) -> Tensor:
    return weights.cumsum(-1, dtype=torch.float64)


def _sums_in_integers(weights: Tensor) -> Tensor:
    scale = _MASS / weights.sum(-1, keepdim=True, dtype=torch.float64)
    return (weights * scale).to(torch.int64).cumsum_(-1)

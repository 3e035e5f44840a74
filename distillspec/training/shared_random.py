"""Chance that all processes share: what rank 0 draws is what happens everywhere."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor

from distillspec.speculation.random_source import RandomSource


class SharedRandomSource:
    """`RandomSource` for processes that decode the same text together, since their target is split.

    Their distributions may differ in the last bit, and a coin that falls differently would send one
    of them another way: the others would then wait for its forward for ever.
    """

    def __init__(self, own: RandomSource) -> None:
        self._own = own

    def accept(self, probability: Tensor) -> Tensor:
        """As rank 0 finds it."""
        coins = self._own.accept(probability).to(torch.uint8)
        torch.distributed.broadcast(coins, src=0)
        return coins.bool()

    def draw(self, weights: Tensor) -> Tensor:
        """As rank 0 finds it."""
        tokens = self._own.draw(weights).contiguous()
        torch.distributed.broadcast(tokens, src=0)
        return tokens

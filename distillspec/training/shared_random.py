"""A random source that all processes share: rank 0 draws and sends the result to the others."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor

from distillspec.speculation.random_source import RandomSource


class SharedRandomSource:
    """`RandomSource` for processes that decode the same text together, since their target is split.

    Their distributions may differ in the last bit. If one process accepted a token that the others
    reject, the others would wait forever for its next forward.
    """

    def __init__(self, source: RandomSource) -> None:
        self._source = source

    def accept(self, probability: Tensor) -> Tensor:
        """Rank 0's decisions."""
        accepted = self._source.accept(probability).to(torch.uint8)
        torch.distributed.broadcast(accepted, src=0)
        return accepted.bool()

    def draw(self, weights: Tensor) -> Tensor:
        """Rank 0's tokens."""
        tokens = self._source.draw(weights).contiguous()
        torch.distributed.broadcast(tokens, src=0)
        return tokens

"""The smallest real model, for tests that enumerate or compute by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class BigramRunner:
    """The smallest real model: the next token's logits are a row of a [V, V] table.

    It keeps its tokens like any cache does, and computes in the table's dtype (float64 for proofs).
    """

    def __init__(self, table: Tensor, *, capacity: int = 1 << 20) -> None:
        assert table.shape == (len(table), len(table)), "a bigram table is square"
        self._table = table
        self._capacity = capacity
        self._tokens = torch.empty((1, 0), dtype=torch.long, device=table.device)

    @property
    def vocab_size(self) -> int:
        return self._table.shape[1]

    @property
    def length(self) -> int:
        return self._tokens.shape[1]

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def positions(self) -> int:
        return self._capacity

    @property
    def tokens(self) -> Tensor:
        """What the cache holds: long [B, length]."""
        return self._tokens

    def reset(self) -> None:
        self._tokens = self._tokens[:1, :0]

    def feed(self, tokens: Tensor) -> Tensor:
        assert self.length + tokens.shape[1] <= self._capacity, "fed beyond the cache's capacity"
        held = self._tokens if self.length else tokens[:, :0]
        self._tokens = torch.cat([held, tokens], dim=1)
        return self._table[tokens]

    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        assert self._tokens.shape[0] == 1, "a tree grows in one row"
        assert all(parent < self.length + i for i, parent in enumerate(parents))
        return self.feed(tokens.unsqueeze(0))

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        self._tokens = self._tokens[:, [*range(length), *slots, *tree]]

    def rollback(self, length: int) -> None:
        assert 0 <= length <= self.length, "a rollback only shortens"
        self._tokens = self._tokens[:, :length]

    def synchronize(self) -> None:
        if self._table.is_cuda:
            torch.cuda.synchronize(self._table.device)

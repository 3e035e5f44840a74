"""Packed rows for pretraining: documents joined by end-of-text, cut into windows of one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distillspec.corpus.sources.python_source import SourceFile
from distillspec.errors import DistillSpecError
from distillspec.recipe.capacity import check_visits
from distillspec.runtime.seeds import derive_seed

_FILES_AT_ONCE = 4096


def pack(files: Sequence[SourceFile], tokenizer: Any, end_token: int) -> Tensor:
    """All files as one row of token ids, each preceded by end-of-text: [N] int32."""
    parts = []
    for start in range(0, len(files), _FILES_AT_ONCE):  # lists of ints take many times the room
        encoded = tokenizer(
            [f.text for f in files[start : start + _FILES_AT_ONCE]],
            add_special_tokens=False,
            split_special_tokens=True,  # code that mentions end-of-text does not end there
        )["input_ids"]
        tokens = [i for ids in encoded for i in (end_token, *ids)]
        parts.append(torch.tensor(tokens, dtype=torch.int32))
    return torch.cat(parts)


class Windows:
    """Batches [B, T] of windows over packed tokens, in an order fixed by the seed.

    An epoch visits each window once in random order; epochs differ in order and in the offset of
    their windows. Which batch a step gets depends on (seed, step) alone, so a resumed run goes on
    exactly where it stopped.
    """

    def __init__(self, tokens: Tensor, *, context: int, batch_size: int, seed: int) -> None:
        if tokens.numel() < 2 * context:
            raise DistillSpecError(
                f"the corpus has {tokens.numel()} tokens, fewer than two windows of {context}",
                where="corpus / train.context",
                fix="widen corpus.include, or shorten train.context",
            )
        self.tokens, self.context, self.batch_size = tokens, context, batch_size
        self.seed = seed
        self.per_epoch = tokens.numel() // context - 1
        check_visits(batch_size, self.per_epoch, "train.batch_size")
        self._known = -1  # epoch that `_order` and `_offset` belong to

    def batch(self, step: int) -> Tensor:
        """The rows of one step: [B, T] long."""
        first = step * self.batch_size
        return torch.stack([self._window(i) for i in range(first, first + self.batch_size)])

    def _window(self, index: int) -> Tensor:
        epoch, place = divmod(index, self.per_epoch)
        order, offset = self._epoch(epoch)
        start = offset + int(order[place]) * self.context
        return self.tokens[start : start + self.context].long()

    def _epoch(self, epoch: int) -> tuple[Tensor, int]:
        if self._known != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "windows", epoch))
            self._offset = int(torch.randint(self.context, (), generator=generator))
            self._order = torch.randperm(self.per_epoch, generator=generator)
            self._known = epoch
        return self._order, self._offset


def validation_rows(tokens: Tensor, *, context: int, rows: int) -> Tensor:
    """Up to `rows` windows spread evenly over held-out tokens: [R, T] long, R >= 1."""
    if tokens.numel() < context:
        raise DistillSpecError(
            f"the held-out text has {tokens.numel()} tokens, fewer than one window of {context}",
            where="held_out_percent / train.context",
            fix="raise held_out_percent, shorten train.context, or take a larger corpus",
        )
    windows = tokens[: tokens.numel() // context * context].view(-1, context)
    stride = max(1, windows.shape[0] // rows)
    return windows[::stride][:rows].long()

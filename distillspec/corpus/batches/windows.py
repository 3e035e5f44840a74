"""Packed rows for pretraining: documents joined by end-of-text, cut into equal windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distillspec.corpus.sources.code_files import SourceFile
from distillspec.errors import DistillSpecError
from distillspec.recipe.capacity import check_visits
from distillspec.runtime.seeds import derive_seed

_FILES_AT_ONCE = 4096


def pack(files: Sequence[SourceFile], tokenizer: Any, end_token: int) -> Tensor:
    """Tokenise all files into one row of ids, with end-of-text before each file: [N] int32."""
    parts = []
    for start in range(0, len(files), _FILES_AT_ONCE):  # lists of ints need many times the memory
        encoded = tokenizer(
            [f.text for f in files[start : start + _FILES_AT_ONCE]],
            add_special_tokens=False,
            split_special_tokens=True,  # code that spells end-of-text does not end there
        )["input_ids"]
        tokens = [i for ids in encoded for i in (end_token, *ids)]
        parts.append(torch.tensor(tokens, dtype=torch.int32))
    return torch.cat(parts)


class Windows:
    """Batches [B, T] of windows over packed tokens, in an order fixed by the seed.

    An epoch visits each window once in random order. Epochs differ in the order and in the offset
    of their windows. The batch of a step depends on (seed, step) alone, so a resumed run continues
    exactly where it stopped.
    """

    def __init__(self, tokens: Tensor, *, context: int, batch_size: int, seed: int) -> None:
        """Check that the tokens suffice.

        Args:
            tokens: The packed tokens, [N].
            context: Length of a window, tokens.
            batch_size: Windows per step.
            seed: Of the order.

        Raises:
            DistillSpecError: There are fewer than two windows of tokens.
        """
        if tokens.numel() < 2 * context:
            raise DistillSpecError(
                f"the corpus has {tokens.numel()} tokens, fewer than two windows of {context}",
                where="corpus / train.context",
                fix="widen corpus.include, or shorten train.context",
            )
        self.tokens, self.context, self.batch_size = tokens, context, batch_size
        self.seed = seed
        # One window fewer than fit, because an epoch starts at an offset of up to a window.
        self.per_epoch = tokens.numel() // context - 1
        check_visits(batch_size, self.per_epoch, "train.batch_size")
        self._known = -1  # epoch that `_order` and `_offset` belong to

    def batch(self, step: int) -> Tensor:
        """The rows of one step: [B, T] long."""
        first = step * self.batch_size
        return torch.stack([self._window(i) for i in range(first, first + self.batch_size)])

    def _window(self, index: int) -> Tensor:
        epoch, turn = divmod(index, self.per_epoch)
        order, offset = self._epoch(epoch)
        start = offset + int(order[turn]) * self.context
        return self.tokens[start : start + self.context].long()

    def _epoch(self, epoch: int) -> tuple[Tensor, int]:
        if self._known != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "windows", epoch))
            self._offset = int(torch.randint(self.context, (), generator=generator))
            self._order = torch.randperm(self.per_epoch, generator=generator)
            self._known = epoch
        return self._order, self._offset


def validation_rows(tokens: Tensor, *, context: int, rows: int) -> Tensor:
    """Up to `rows` windows, spread evenly over held-out tokens: [R, T] long, R >= 1."""
    if tokens.numel() < context:
        raise DistillSpecError(
            f"the held-out text has {tokens.numel()} tokens, fewer than one window of {context}",
            where="held_out_percent / train.context",
            fix="raise held_out_percent, shorten train.context, or take a larger corpus",
        )
    windows = tokens[: tokens.numel() // context * context].view(-1, context)
    stride = max(1, windows.shape[0] // rows)
    return windows[::stride][:rows].long()

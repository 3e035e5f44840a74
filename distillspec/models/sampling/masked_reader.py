"""A batch whose rows keep different parts of the cache: masks hide columns, nothing is cut."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.models.runners.cache import additive_mask
from distillspec.models.sampling.forward import Forward, read_prompts

_MAX_HIDDEN = 64  # columns that no row sees; beyond that the cache is compacted, which copies it


class MaskedReader:
    """What one model has read of a batch, and which columns of its cache each row sees."""

    def __init__(self, forward: Forward, texts: list[Tensor]) -> None:
        self._forward = forward
        self._cache = read_prompts(forward, texts, 4 * _MAX_HIDDEN)
        lengths = torch.tensor([len(text) for text in texts], device=forward.device)
        columns = torch.arange(len(texts[-1]), device=forward.device)
        self._sees = columns >= len(texts[-1]) - lengths[:, None]  # bool [B, columns]
        self._compact_at = len(columns) + 2 * _MAX_HIDDEN  # number of columns

    def last_logits(self, tokens: Tensor, is_text: Tensor) -> Tensor:
        """Read long [B, n] -> logits [B, V] after the last; later tokens see those of `is_text`."""
        return self._forward(tokens, self._cache, *self._added(is_text))

    def logits(self, tokens: Tensor, is_text: Tensor) -> Tensor:
        """Read long [B, n] -> logits after each token, [B, n, V]."""
        return self._forward.logits(tokens, self._cache, *self._added(is_text))

    def states(self, tokens: Tensor, is_text: Tensor) -> Tensor:
        """Read long [B, n] -> hidden states, [B, n, H]."""
        return self._forward.states(tokens, self._cache, *self._added(is_text))

    def _added(self, is_text: Tensor) -> tuple[Tensor, Tensor]:
        """Mask [B, 1, n, columns + n] and positions [B, n] of n new columns."""
        self._compact()
        new = is_text.shape[1]
        # Hidden columns take no position.
        before = self._sees.sum(1, keepdim=True)
        positions = (before + is_text.cumsum(1) - 1).clamp_(min=0)
        # Every token sees itself, even one that is no text: no row of the mask is empty.
        own = torch.eye(new, dtype=torch.bool, device=is_text.device)
        within = is_text[:, None, :] & own.new_ones(new, new).tril_()
        sees = torch.cat([self._sees[:, None].expand(-1, new, -1), within | own], 2)
        self._sees = torch.cat([self._sees, is_text], 1)
        return additive_mask(sees, self._forward.dtype)[:, None], positions

    def hide(self, columns: Tensor) -> None:
        """Hide some of the last columns, bool [B, n], from all later tokens."""
        self._sees[:, -columns.shape[1] :] &= ~columns

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows, long [B']."""
        self._cache.keep_rows(rows)
        self._sees = self._sees[rows]

    def _compact(self) -> None:
        """Move visible columns together when many columns are hidden from all rows."""
        held = self._sees.shape[1]
        if held < self._compact_at:
            return
        longest = int(self._sees.sum(1).max())
        self._compact_at = held + _MAX_HIDDEN
        if held - longest > _MAX_HIDDEN:
            # A stable sort of 0 and 1: hidden columns first, then the visible ones in order.
            order = self._sees.int().argsort(dim=1, stable=True)[:, held - longest :]
            self._cache.keep_columns(order)
            self._sees = self._sees.gather(1, order)
            self._compact_at = longest + 2 * _MAX_HIDDEN

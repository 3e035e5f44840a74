"""The frozen target: scores text, is never trained and never saved."""

from __future__ import annotations

import gc

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.divergence.head import OutputHead
from distillspec.models.surgery.hidden_states import (
    Layout,
    hidden_states,
    is_sharded,
    output_head,
    token_logits,
)


class FrozenTarget:
    """A target in eval mode without gradients.

    It is no `nn.Module`: a module that holds one neither lists its parameters nor saves them.
    vocab_size: logits are trimmed to this many tokens.
    """

    def __init__(self, model: PreTrainedModel, vocab_size: int | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.is_split = is_sharded(model)  # over all processes, which must ask it together
        self._vocab_size = vocab_size

    @property
    def head(self) -> OutputHead | None:
        """Output weights for `hidden`, or None: then take `logits`."""
        return output_head(self.model, self._vocab_size)

    @torch.no_grad()
    def hidden(
        self, tokens: Tensor, attention_mask: Tensor | None, layout: Layout | None = None
    ) -> Tensor:
        """long [B, T], bool [B, T] -> hidden states [B, T, H]."""
        return hidden_states(self.model, tokens, attention_mask, layout)

    @torch.no_grad()
    def logits(
        self, tokens: Tensor, attention_mask: Tensor | None, layout: Layout | None = None
    ) -> Tensor:
        """long [B, T], bool [B, T] -> logits [B, T, V]."""
        return token_logits(self.model, tokens, attention_mask, self._vocab_size, layout)

    def leave_processes(self) -> None:
        """Give up this process's part of a split target: its configuration is all that stays.

        Before the process group ends: what it still owned then would end with the interpreter.
        """
        assert self.is_split
        with torch.device("meta"):
            self.model = type(self.model)(self.model.config)
        gc.collect()

    def release(self) -> None:
        """Give the memory of the weights back: nothing can be asked of it any more."""
        self.model.to("meta")

    def to(self, device: torch.device | str) -> FrozenTarget:
        """Move the weights; returns itself."""
        self.model.to(device)
        return self

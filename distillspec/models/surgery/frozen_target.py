"""The frozen target: it scores text and is never trained or saved."""

from __future__ import annotations

import gc

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.divergence.head import OutputHead
from distillspec.models.surgery.hidden_states import (
    TreeLayout,
    hidden_states,
    is_sharded,
    output_head,
    token_logits,
)


class FrozenTarget:
    """A target in eval mode without gradients.

    It is no `nn.Module`, so a module that holds it neither lists nor saves its parameters.

    Args:
        model: The target; it is frozen in place.
        vocab_size: Logits are trimmed to this many tokens.
    """

    def __init__(self, model: PreTrainedModel, vocab_size: int | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.is_split = is_sharded(model)  # over all processes, which must call it together
        self._vocab_size = vocab_size

    @property
    def head(self) -> OutputHead | None:
        """Output weights for `hidden`, or None: then use `logits`."""
        return output_head(self.model, self._vocab_size)

    @torch.no_grad()
    def hidden(
        self, tokens: Tensor, attention_mask: Tensor | None, layout: TreeLayout | None = None
    ) -> Tensor:
        """long [B, T], bool [B, T] -> hidden states [B, T, H]."""
        return hidden_states(self.model, tokens, attention_mask, layout)

    @torch.no_grad()
    def logits(
        self, tokens: Tensor, attention_mask: Tensor | None, layout: TreeLayout | None = None
    ) -> Tensor:
        """long [B, T], bool [B, T] -> logits [B, T, V]."""
        return token_logits(self.model, tokens, attention_mask, self._vocab_size, layout)

    def leave_processes(self) -> None:
        """Release this process's part of a split target, but keep the configuration.

        Call it before the process group ends. Otherwise the weights are freed at interpreter exit,
        after the group.
        """
        assert self.is_split
        with torch.device("meta"):
            self.model = type(self.model)(self.model.config)
        gc.collect()

    def release(self) -> None:
        """Free the memory of the weights; the target cannot be used afterwards."""
        self.model.to("meta")

    def to(self, device: torch.device | str) -> FrozenTarget:
        """Move the weights; return the same object."""
        self.model.to(device)
        return self

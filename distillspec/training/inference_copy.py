"""The draft as a plain model: what rollouts and probes decode with, at its current weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from distillspec.models.bare import bare_model
from distillspec.models.loading.precision import cast_parameters
from distillspec.training.strategy import full_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class InferenceCopy:
    """A copy of the draft in the decoding dtype, whole on this process, refreshed on demand.

    Decoding under autocast would cast every weight in every step; a copy in bfloat16 does it once.
    Sharded training has no whole model to decode with at all, and graphs that were compiled for
    training do not fit a cache. Where none of this is the case (float32) the copy is the draft.
    """

    def __init__(
        self, draft: nn.Module, dtype: torch.dtype, *, sharded: bool, compiled: bool = False
    ) -> None:
        self._draft = draft
        same = all(p.dtype == dtype for p in draft.parameters()) and not (sharded or compiled)
        self._copy = draft
        if not same:
            self._copy = copy.deepcopy(draft).requires_grad_(False)
            cast_parameters(self._copy, dtype)

    def refresh(self, device: torch.device) -> PreTrainedModel:
        """The model at the draft's current weights, in eval mode. Every process must call it.

        Its owner puts the draft back into `train_mode`.
        """
        if self._copy is not self._draft:
            self._copy.to(device)
            mine = dict(self._copy.named_parameters())
            with torch.no_grad():
                for name, whole in full_tensors(self._draft):
                    mine[name].copy_(whole)
        self._copy.eval()
        return bare_model(self._copy)

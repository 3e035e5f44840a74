"""The draft as a plain model at its current weights, for rollouts and probes."""

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
    """A complete copy of the draft in the decoding dtype, refreshed on demand.

    Training needs a copy in three cases. Under autocast, decoding would cast every weight in every
    step; a bfloat16 copy casts it once. Sharded training has no complete model on any process.
    Graphs that were compiled for training do not accept a cache. In all other cases (float32) the
    copy is the draft itself.
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
        """Copy the draft's current weights. Every process must call it.

        Returns:
            The model in eval mode. It may be the draft itself: the caller sets `train_mode` again.
        """
        if self._copy is not self._draft:
            self._copy.to(device)
            parameters = dict(self._copy.named_parameters())
            with torch.no_grad():
                # Frozen weights never change, so only the trained ones are copied again.
                for name, weight in full_tensors(self._draft):
                    parameters[name].copy_(weight)
        self._copy.eval()
        return bare_model(self._copy)

"""What a step minimises: the divergence at the response tokens of a batch, summed.

Callable without a trainer. Sums come out, nothing is divided here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillspec.corpus.batching import Batch
from distillspec.divergence.chunked import (
    chunked_cross_entropy,
    chunked_divergence,
    chunked_divergence_from_logits,
    cross_entropy_from_logits,
)
from distillspec.divergence.head import OutputHead
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.table import divergence
from distillspec.models.frozen import FrozenTarget
from distillspec.models.hidden import hidden_states, output_head, token_logits
from distillspec.recipe.schema import Distill


def predicts_response(batch: Batch) -> Tensor:
    """Positions whose next token belongs to a response: bool [B, T].

    The one place of the shift: a causal model's output at position t is its law of token t + 1, so
    the first response token is predicted at the prompt's last position, and the last position of a
    row predicts nothing we know.
    """
    predicts = torch.zeros_like(batch.is_response)
    predicts[:, :-1] = batch.is_response[:, 1:]
    return predicts


def token_weights(batch: Batch, reduction: str) -> Tensor:
    """Weight of each predicted token in row-major order: [N], whose sum is what the loss is over.

    "tokens": 1 each, so the sum counts tokens. "sequences": 1 / length of its response, so the sum
    counts sequences. Divide the loss by the sum over all micro-batches and processes of a step.
    """
    predicts = predicts_response(batch)
    if reduction == "tokens":
        return torch.ones(int(predicts.sum()), device=predicts.device)
    lengths = predicts.sum(dim=1, keepdim=True).clamp(min=1)
    return (1.0 / lengths).expand_as(predicts)[predicts]


class TargetSignal(NamedTuple):
    """What the frozen target says of a batch's N predicted tokens; at most one is not None."""

    hidden: Tensor | None  # [N, H]: projected in chunks, together with the draft's
    logits: Tensor | None  # [N, V]: where a head is no plain matrix, or is sharded


class Objective:
    """Divergence between target and draft, or the draft's cross entropy (`nll`, no target).

    Where both heads are plain matrices, hidden states are kept and projected chunk by chunk. Else
    (a head that does more, LoRA on it, weights sharded over processes) the models make their own
    logits, and only the maths goes in chunks. Unequal vocabularies are trimmed to the common rows.
    """

    def __init__(self, distill: Distill, target: FrozenTarget | None) -> None:
        assert target is not None or distill.divergence == "nll"
        self.distill = distill
        self.target = None if distill.divergence == "nll" else target

    def __call__(self, draft: nn.Module, batch: Batch) -> DivergenceSums:
        """Both forwards; sums over the batch's response tokens, by their `token_weights`."""
        return self.against(draft, batch, self.target_signal(draft, batch))

    @torch.no_grad()
    def target_signal(self, draft: nn.Module, batch: Batch) -> TargetSignal:
        """The target's forward over the batch, kept at the positions that predict a response."""
        if self.target is None:
            return TargetSignal(None, None)
        predicts = predicts_response(batch)
        if self.target.head is None or output_head(draft) is None:
            logits = self.target.logits(batch.tokens, batch.is_token)
            return TargetSignal(None, logits[predicts])
        return TargetSignal(self.target.hidden(batch.tokens, batch.is_token)[predicts], None)

    def against(self, draft: nn.Module, batch: Batch, signal: TargetSignal) -> DivergenceSums:
        """The draft's forward and the sums; differentiable in the draft's weights."""
        if self.target is None:
            return self._cross_entropy(draft, batch)
        distill, predicts = self.distill, predicts_response(batch)
        measure = divergence(distill.divergence, jsd_weight=distill.jsd_weight)
        weights = token_weights(batch, distill.reduction)
        if signal.hidden is not None:
            target_head, draft_head = self.target.head, output_head(draft)
            assert target_head is not None and draft_head is not None
            rows = min(target_head.weight.shape[0], draft_head.weight.shape[0])
            return chunked_divergence(
                measure,
                signal.hidden,
                _trimmed(target_head, rows),
                hidden_states(draft, batch.tokens, batch.is_token)[predicts],
                _trimmed(draft_head, rows),
                temperature=distill.temperature,
                weights=weights,
                chunk_tokens=distill.chunk_tokens,
            )
        assert signal.logits is not None
        p_logits, q_logits = signal.logits, _logits_at(draft, batch, predicts)
        rows = min(p_logits.shape[-1], q_logits.shape[-1])
        return chunked_divergence_from_logits(
            measure,
            p_logits[:, :rows],
            q_logits[:, :rows],
            temperature=distill.temperature,
            weights=weights,
            chunk_tokens=distill.chunk_tokens,
        )

    def _cross_entropy(self, draft: nn.Module, batch: Batch) -> DivergenceSums:
        """-log q of the response tokens, at temperature 1: data has none of its own."""
        predicts = predicts_response(batch)
        labels = batch.tokens[:, 1:][predicts[:, :-1]]
        weights = token_weights(batch, self.distill.reduction)
        chunk_tokens = self.distill.chunk_tokens
        head = output_head(draft)
        if head is None:
            logits = _logits_at(draft, batch, predicts)
            return cross_entropy_from_logits(
                logits, labels, weights=weights, chunk_tokens=chunk_tokens
            )
        hidden = hidden_states(draft, batch.tokens, batch.is_token)[predicts]
        return chunked_cross_entropy(
            hidden, head, labels, weights=weights, chunk_tokens=chunk_tokens
        )


def _logits_at(draft: nn.Module, batch: Batch, positions: Tensor) -> Tensor:
    """The model's own logits at bool [B, T]: [N, V]."""
    return token_logits(draft, batch.tokens, batch.is_token)[positions]


def _trimmed(head: OutputHead, rows: int) -> OutputHead:
    """The head's first `rows` tokens; the head itself where it has no more."""
    if head.weight.shape[0] == rows:
        return head
    bias = None if head.bias is None else head.bias[:rows]
    return head._replace(weight=head.weight[:rows], bias=bias)

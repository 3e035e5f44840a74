"""Target and draft at the N positions of a batch that predict a response, however they are held."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from distillspec.divergence.chunked import (
    chunked_cross_entropy,
    chunked_divergence,
    chunked_divergence_from_logits,
    chunked_scores,
    cross_entropy_from_logits,
    scores_from_logits,
)
from distillspec.divergence.coarse import coarse_divergence, coarse_scores
from distillspec.divergence.head import OutputHead
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.row_pass import RowScores
from distillspec.divergence.table import Divergence
from distillspec.divergence.top_tokens import TopTokens


class CachedTopK(NamedTuple):
    """What the frozen target says of a batch's N predicted tokens; nothing where it is not asked.

    Logits are read where they are given: then hidden states are told for later use only.
    """

    hidden: Tensor | None  # [N, H]: projected in chunks, together with the draft's
    logits: Tensor | None  # [N, V]: where a head is no plain matrix, or is sharded
    top: TopTokens | None = (
        None  # N distributions that were kept: divergences are those of coarse distributions
    )


class LossInputs:
    """draft: hidden states [N, H] with their head, or logits [N, V] where `draft_head` is None.

    The signal is of the same form, or kept, or None where no target is read. Vocabularies are
    trimmed to the common rows. Sums are differentiable in the draft's side, as in
    `divergence/chunked.py`. Against a kept signal they are those of `divergence/coarse.py`: alpha
    is then an upper bound.
    """

    def __init__(
        self,
        signal: CachedTopK,
        target_head: OutputHead | None,
        draft: Tensor,
        draft_head: OutputHead | None,
        *,
        temperature: float,
        chunk_tokens: int,
        vocab_size: int | None = None,
    ) -> None:
        """vocab_size: tokens that both models share; also where no target is read, the draft's
        distributions are over these alone.
        """
        self._temperature, self._chunk_tokens = temperature, chunk_tokens
        self._target, self._draft = signal, draft
        self._target_head, self._draft_head = target_head, draft_head
        self._vocab_size = vocab_size

    def divergence(self, measure: Divergence, weights: Tensor) -> DivergenceSums:
        """Sum of weights [N] * divergence."""
        if self._target.top is not None:
            return coarse_divergence(
                measure,
                self._target.top,
                *self._trimmed_draft(),
                temperature=self._temperature,
                weights=weights,
                chunk_tokens=self._chunk_tokens,
            )
        if self._draft_head is None:
            return chunked_divergence_from_logits(
                measure,
                *self._logits(),
                temperature=self._temperature,
                weights=weights,
                chunk_tokens=self._chunk_tokens,
            )
        return chunked_divergence(
            measure,
            *self._hidden(),
            temperature=self._temperature,
            weights=weights,
            chunk_tokens=self._chunk_tokens,
        )

    def scores(self, against: Divergence | Tensor) -> RowScores:
        """Each row's divergence, or for tokens (long [N]) min(1, q(token) / p(token)).

        The latter is not known of a kept signal, whose lump hides most tokens.
        """
        if self._target.top is not None:
            assert not isinstance(against, Tensor), "the recipe has been checked"
            return coarse_scores(
                against,
                self._target.top,
                *self._trimmed_draft(),
                temperature=self._temperature,
                chunk_tokens=self._chunk_tokens,
            )
        if self._draft_head is None:
            return scores_from_logits(
                against,
                *self._logits(),
                temperature=self._temperature,
                chunk_tokens=self._chunk_tokens,
            )
        return chunked_scores(
            against,
            *self._hidden(),
            temperature=self._temperature,
            chunk_tokens=self._chunk_tokens,
        )

    def cross_entropy(self, tokens: Tensor, weights: Tensor, temperature: float) -> DivergenceSums:
        """Sum of weights [N] * -log q(token), long [N]; needs no target."""
        draft, head = self._trimmed_draft()
        if head is None:
            return cross_entropy_from_logits(
                draft,
                tokens,
                weights=weights,
                chunk_tokens=self._chunk_tokens,
                temperature=temperature,
            )
        return chunked_cross_entropy(
            draft,
            head,
            tokens,
            weights=weights,
            chunk_tokens=self._chunk_tokens,
            temperature=temperature,
        )

    def _trimmed_draft(self) -> tuple[Tensor, OutputHead | None]:
        """The draft's side, over the tokens that the target knows too."""
        if self._target.logits is not None:
            return self._logits()[1], None
        if self._target.hidden is not None:
            return self._hidden()[2:]
        rows, head = self._vocab_size, self._draft_head
        if self._target.top is not None:
            rows = self._target.top.vocab_size
        if head is None:
            return self._draft[:, :rows], None
        return self._draft, head if rows is None else _trimmed(head, min(rows, head.vocab_size))

    def _logits(self) -> tuple[Tensor, Tensor]:
        assert self._target.logits is not None
        rows = min(self._target.logits.shape[-1], self._draft.shape[-1])
        return self._target.logits[:, :rows], self._draft[:, :rows]

    def _hidden(self) -> tuple[Tensor, OutputHead, Tensor, OutputHead]:
        assert self._target.hidden is not None
        assert self._target_head is not None and self._draft_head is not None
        rows = min(self._target_head.vocab_size, self._draft_head.vocab_size)
        return (
            self._target.hidden,
            _trimmed(self._target_head, rows),
            self._draft,
            _trimmed(self._draft_head, rows),
        )


def _trimmed(head: OutputHead, rows: int) -> OutputHead:
    """The head's first `rows` tokens; the head itself where it has no more."""
    if head.weight.shape[0] == rows:
        return head
    bias = None if head.bias is None else head.bias[:rows]
    return head._replace(weight=head.weight[:rows], bias=bias)

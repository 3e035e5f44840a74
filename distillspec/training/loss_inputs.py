"""The rows of target and draft that a loss compares: one for each predicted token of a batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from distillspec.divergence.comparison import Comparison, TargetDivergence, TokenAcceptance
from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import ModelRows
from distillspec.divergence.table import Divergence
from distillspec.divergence.top_k import TopKDivergence
from distillspec.divergence.top_tokens import TopTokens


class TargetOutputs(NamedTuple):
    """The frozen target's outputs for the N predicted tokens of a batch; all None without a target.

    Attributes:
        hidden: Hidden states [N, H], projected in chunks together with the draft's.
        logits: Logits [N, V], if a head is no plain matrix or is sharded. They take precedence:
            hidden states are then stored for later steps only.
        top: Cached top-k logits of the N tokens.
    """

    hidden: Tensor | None
    logits: Tensor | None
    top: TopTokens | None = None

    def rows(self, head: OutputHead | None) -> ModelRows | None:
        """The target's rows; `head` belongs to its hidden states."""
        if self.logits is not None:
            return ModelRows(self.logits)
        if self.hidden is None:
            return None
        assert head is not None
        return ModelRows(self.hidden, head)


class LossInputs(NamedTuple):
    """N rows of both models over the vocabulary that they share.

    Attributes:
        draft: The draft's rows, which the loss is differentiated in.
        target: The target's rows, its cached top-k logits, or None if no target is read.
    """

    draft: ModelRows
    target: ModelRows | TopTokens | None

    @classmethod
    def of(
        cls,
        draft: ModelRows,
        target: ModelRows | TopTokens | None,
        vocab_size: int | None = None,
    ) -> LossInputs:
        """Trim both models to their common tokens.

        Args:
            draft: The draft's rows, over all of its tokens.
            target: The target's rows, over all of its tokens.
            vocab_size: Tokens that both models share; used if no target is read.
        """
        if target is None:
            return cls(draft if vocab_size is None else draft.trimmed(vocab_size), None)
        if isinstance(target, TopTokens):
            return cls(draft.trimmed(target.vocab_size), target)
        # Vocabularies of one family differ by padding at the end.
        common = min(target.vocab_size, draft.vocab_size)
        return cls(draft.trimmed(common), target.trimmed(common))

    def divergence(self, measure: Divergence) -> Comparison:
        """Compare each row with the target, or with its cached top-k logits."""
        assert self.target is not None
        if isinstance(self.target, TopTokens):
            return TopKDivergence(measure, self.target)
        return TargetDivergence(measure, self.target)

    def acceptance(self, tokens: Tensor) -> Comparison:
        """The probability that verification accepts each of the tokens, long [N].

        Cached top-k logits cannot give it, since they lack most tokens.
        """
        assert isinstance(self.target, ModelRows), "the recipe's check refuses cached logits here"
        return TokenAcceptance(tokens, self.target)

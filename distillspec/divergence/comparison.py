"""What the draft's rows are compared with: a target's distributions, or given tokens.

A `Comparison` holds N rows. Its `scorer` scores the rows that count, one chunk at a time.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distillspec.divergence.cross_entropy import fused_cross_entropy
from distillspec.divergence.distribution import Distribution
from distillspec.divergence.logit_rows import LogitRows, ModelRows, RowPlan
from distillspec.divergence.table import Divergence


class Scores(NamedTuple):
    """Scores of a block of n rows.

    Attributes:
        value: Divergence of each row, [n].
        alpha: Acceptance rate of each row, [n].
        gradient: Gradient of `value` in the draft's tempered logits, [n, V].
    """

    value: Tensor
    alpha: Tensor
    gradient: Tensor


class RowScorer(Protocol):
    """Scores the draft's rows, one chunk at a time."""

    def load(self, chunk: slice) -> None:
        """Prepare what the rows of `chunk` are compared with."""

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        """Score the rows `block` of the loaded chunk.

        Args:
            block: Rows inside the chunk, n of them.
            q: The draft's distributions of these rows.
            room: Buffer [n, V] that receives the gradient.
        """


class Comparison(Protocol):
    """What N rows of a draft are compared with."""

    @property
    def states(self) -> tuple[Tensor, ...]:
        """The target's tensors, which decide the precision together with the draft's."""

    def scorer(self, plan: RowPlan, draft: ModelRows) -> RowScorer:
        """The scorer of the rows that count in `plan`."""


class TargetDivergence(NamedTuple):
    """The divergence from the target's distribution."""

    divergence: Divergence
    target: ModelRows

    @property
    def states(self) -> tuple[Tensor, ...]:
        return (self.target.states,)

    def scorer(self, plan: RowPlan, draft: ModelRows) -> RowScorer:
        _check_same_rows(self.target, draft)
        return _TargetScorer(self.divergence, plan.logits(self.target))


class TokenLikelihood(NamedTuple):
    """-log q of given tokens, long [N], in nats. Without a target alpha is NaN."""

    tokens: Tensor

    @property
    def states(self) -> tuple[Tensor, ...]:
        return ()

    def scorer(self, plan: RowPlan, draft: ModelRows) -> RowScorer:
        assert draft.states.shape[0] == self.tokens.shape[0]
        return _LikelihoodScorer(plan.of(self.tokens))


class TokenAcceptance(NamedTuple):
    """min(1, q / p) of given tokens: the probability that verification accepts them.

    The score has no gradient. Losses that need one compute their own.

    Attributes:
        tokens: Long [N].
        target: The target's rows, over the same N rows and V tokens as the draft's.
    """

    tokens: Tensor
    target: ModelRows

    @property
    def states(self) -> tuple[Tensor, ...]:
        return (self.target.states,)

    def scorer(self, plan: RowPlan, draft: ModelRows) -> RowScorer:
        _check_same_rows(self.target, draft)
        return _AcceptanceScorer(plan.of(self.tokens), plan.logits(self.target))


def _check_same_rows(target: ModelRows, draft: ModelRows) -> None:
    assert target.states.shape[0] == draft.states.shape[0]
    assert target.vocab_size == draft.vocab_size, "trim both models to one vocabulary"


class _TargetScorer(NamedTuple):
    divergence: Divergence
    target: LogitRows

    def load(self, chunk: slice) -> None:
        self.target.load(chunk)

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        p = self.target.distribution(block)
        # `room` first holds the minima; `fused` then overwrites them with the gradient.
        alpha = torch.minimum(p.probability, q.probability, out=room).sum(-1)
        value, gradient = self.divergence.fused(p, q, room)
        return Scores(value, alpha, gradient)


class _LikelihoodScorer(NamedTuple):
    tokens: Tensor  # long [M]

    def load(self, chunk: slice) -> None:
        """Nothing to prepare: the tokens are in memory."""

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        value, gradient = fused_cross_entropy(q, self.tokens[block], room)
        return Scores(value, torch.full_like(value, float("nan")), gradient)


class _AcceptanceScorer(NamedTuple):
    tokens: Tensor  # long [M]
    target: LogitRows

    def load(self, chunk: slice) -> None:
        self.target.load(chunk)

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        p = self.target.distribution(block)
        alpha = torch.minimum(p.probability, q.probability, out=room).sum(-1)
        tokens = self.tokens[block].unsqueeze(-1)
        p_token, q_token = (model.probability.gather(1, tokens)[:, 0] for model in (p, q))
        acceptance = torch.where(q_token >= p_token, 1.0, q_token / p_token)  # 1 where p = 0
        # `room` still holds the minima, which are no gradient.
        return Scores(acceptance, alpha, room.zero_())

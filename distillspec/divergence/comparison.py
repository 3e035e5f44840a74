"""What the draft's rows are compared with: a target, or given tokens.

A `Comparison` holds N rows. Its `scorer` goes over the rows that count, a chunk at a time.
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
    """A block of n rows, compared."""

    value: Tensor  # [n], the divergence
    alpha: Tensor  # [n], the acceptance rate
    gradient: Tensor  # [n, V], of the value in q.logits


class RowScorer(Protocol):
    """Scores the draft's rows, a chunk at a time."""

    def load(self, chunk: slice) -> None:
        """Prepare what the rows of `chunk` are compared with."""

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        """Score the rows `block` of the chunk; the gradient is written into `room` [n, V]."""


class Comparison(Protocol):
    """What N rows of a draft are compared with."""

    @property
    def states(self) -> tuple[Tensor, ...]:
        """Tensors of the other model, which take part in choosing the precision."""

    def scorer(self, plan: RowPlan, draft: ModelRows) -> RowScorer:
        """Scorer of the rows that count in `plan`."""


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
    """-log q of given tokens, long [N]. There is no target, so alpha is NaN."""

    tokens: Tensor

    @property
    def states(self) -> tuple[Tensor, ...]:
        return ()

    def scorer(self, plan: RowPlan, draft: ModelRows) -> RowScorer:
        assert draft.states.shape[0] == self.tokens.shape[0]
        return _LikelihoodScorer(plan.of(self.tokens))


class TokenAcceptance(NamedTuple):
    """min(1, q / p) of given tokens, long [N]: the probability that verification accepts them.

    It has no gradient: a loss that needs one has its own.
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
        alpha = torch.minimum(p.probability, q.probability, out=room).sum(-1)
        value, gradient = self.divergence.fused(p, q, room)
        return Scores(value, alpha, gradient)


class _LikelihoodScorer(NamedTuple):
    tokens: Tensor  # long [M]

    def load(self, chunk: slice) -> None:
        """The tokens are there already."""

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
        p_token, q_token = (side.probability.gather(1, tokens)[:, 0] for side in (p, q))
        acceptance = torch.where(q_token >= p_token, 1.0, q_token / p_token)  # 1 where p = 0
        return Scores(acceptance, alpha, room.zero_())

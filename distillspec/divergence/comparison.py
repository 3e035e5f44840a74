"""What the draft's distributions are compared with: the target's, or given tokens."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distillspec.divergence.cross_entropy import cross_entropy_gradient
from distillspec.divergence.distribution import Distribution
from distillspec.divergence.logit_rows import LogitRows
from distillspec.divergence.table import Divergence


class Scores(NamedTuple):
    """A block of n rows compared."""

    value: Tensor  # [n], the divergence
    alpha: Tensor  # [n], the acceptance rate
    gradient: Tensor  # [n, V], of the value in q.logits


class RowComparison(Protocol):
    """Scores the draft's rows, a chunk at a time."""

    def load(self, chunk: slice) -> None:
        """Make ready what the rows of `chunk` are compared with."""

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        """Rows `block`, inside the chunk; the gradient lies in `room` [n, V]."""


class AgainstTarget(NamedTuple):
    """The divergence from the target's distribution."""

    divergence: Divergence
    logits: LogitRows

    def load(self, chunk: slice) -> None:
        """The target's logits of `chunk`."""
        self.logits.load(chunk)

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        """Divergence and sum_v min(p_v, q_v)."""
        p = self.logits.distribution(block)
        alpha = torch.minimum(p.probability, q.probability, out=room).sum(-1)
        value, gradient = self.divergence.value_and_gradient(p, q, room)
        return Scores(value, alpha, gradient)


class AgainstTokens(NamedTuple):
    """-log q of given tokens; there is no target, so alpha is NaN."""

    tokens: Tensor  # long [N]

    def load(self, chunk: slice) -> None:
        """The tokens are there already."""

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        """Negative log likelihood."""
        value, gradient = cross_entropy_gradient(q, self.tokens[block], room)
        return Scores(value, torch.full_like(value, float("nan")), gradient)


class AcceptanceProbability(NamedTuple):
    """min(1, q / p) of given tokens: below 1 where the target likes the token better."""

    tokens: Tensor  # long [N]
    logits: LogitRows

    def load(self, chunk: slice) -> None:
        """The target's logits of `chunk`."""
        self.logits.load(chunk)

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        """Without a gradient: those who ask have one of their own. 1 where p = 0."""
        p = self.logits.distribution(block)
        alpha = torch.minimum(p.probability, q.probability, out=room).sum(-1)
        tokens = self.tokens[block].unsqueeze(-1)
        of_p, of_q = (side.probability.gather(1, tokens)[:, 0] for side in (p, q))
        chance = torch.where(of_q >= of_p, 1.0, of_q / of_p)  # NaN stays NaN
        return Scores(chance, alpha, room.zero_())

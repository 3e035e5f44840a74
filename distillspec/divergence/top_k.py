"""Divergences from cached top-k logits: the k most probable tokens and the mass of the rest.

Both distributions are reduced to k + 1 outcomes: each cached token, and all other tokens together
(the rest). The masses of p come from the cache. The rest of q is the sum over its uncached tokens.
The divergence is 0 if and only if p and q agree on each of the k + 1 masses.

The cache does not store how p spreads the rest over tokens. By the data-processing inequality an
f-divergence (forward and reverse KL, JSD, TVD) of the reduced distributions is at most that of the
full ones, grows with k, and equals it at k = V. So 1 - TVD is *at least* the true alpha, and -log
of it is at most the true value. lk_lambda has no such order, since its mixture depends on alpha.

Value and gradient are those of a p that spreads the rest in the proportions of q (held fixed): q
learns only the mass of the rest. If p were renormalised without the rest, q would learn to give the
other tokens no mass, and even q = p would have a gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.divergence.comparison import RowScorer, Scores
from distillspec.divergence.distribution import Distribution, distribution
from distillspec.divergence.logit_rows import ModelRows, RowPlan
from distillspec.divergence.table import Divergence
from distillspec.divergence.top_tokens import TopTokens


class TopKDivergence(NamedTuple):
    """The divergence of the reduced distributions; its alpha is at least the true one.

    Attributes:
        divergence: Applied to the k + 1 outcomes.
        top: The target's cached rows, N of them.
    """

    divergence: Divergence
    top: TopTokens

    @property
    def states(self) -> tuple[Tensor, ...]:
        return ()

    def scorer(self, plan: RowPlan, draft: ModelRows) -> RowScorer:
        assert draft.vocab_size == self.top.vocab_size, "trim the draft to the cached vocabulary"
        assert draft.states.shape[0] == self.top.ids.shape[0]
        return _TopKScorer(self.divergence, self.top.of(plan.rows))


class _TopKScorer(NamedTuple):
    divergence: Divergence
    top: TopTokens

    def load(self, chunk: slice) -> None:
        """Nothing to prepare: the cached rows are in memory."""

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        """Divergence and sum min(p, q) over the k + 1 outcomes; the gradient in q's V logits.

        The logit of the rest is log sum exp of the uncached tokens' logits. Its slope in each of
        them is that token's share of the rest.
        """
        ids = self.top.ids[block].long()
        tiny = torch.finfo(room.dtype).tiny
        # 1. The rest of q, as a mass and as a logit.
        uncached = room.copy_(q.probability).scatter_(1, ids, 0.0)
        rest = uncached.sum(-1, keepdim=True)
        divisor = rest.clamp_min(tiny)  # a rest without mass needs a finite logarithm
        rest_logit = divisor.log() + q.log_partition.unsqueeze(-1)
        # 2. Reduce both models to k + 1 outcomes. The softmax normalises rounded cache values.
        reduced_p = distribution(
            torch.cat(
                (self.top.log_probability[block], self.top.log_rest[block].unsqueeze(-1)), -1
            ).to(room.dtype)
        )
        # q needs no softmax: its k + 1 masses add up to 1 already.
        reduced_q = Distribution(
            torch.cat((q.logits.gather(1, ids), rest_logit), -1),
            torch.cat((q.probability.gather(1, ids), rest), -1),
            q.log_partition,
        )
        # 3. Score the reduced distributions.
        alpha = torch.minimum(reduced_p.probability, reduced_q.probability).sum(-1)
        value, gradient = self.divergence.fused(
            reduced_p, reduced_q, torch.empty_like(reduced_q.logits)
        )
        # 4. Each uncached token takes its share of the rest's gradient.
        uncached.mul_(gradient[:, -1:] / divisor).scatter_(1, ids, gradient[:, :-1])
        return Scores(value, alpha, uncached)

"""Divergences from cached top-k logits: the k most probable tokens and the mass of the rest.

Both distributions are made *coarse*: k outcomes for the cached tokens, and one for all others
together. The masses of p are the cached ones. The rest of q is the sum over its own other tokens.
The divergence of the two coarse distributions, over k + 1 outcomes, is 0 if and only if q gives
each of the k tokens, and the rest together, the mass that p gives them.

The cache does not know how the rest is spread. By the data-processing inequality an f-divergence
(forward and reverse KL, JSD, TVD) of the coarse distributions is at most that of the full ones,
grows with k, and equals it at k = V. So 1 - TVD is *at least* the true alpha, and -log of it is at
most the true value. lk_lambda has no such order, since its mixture depends on alpha.

Value and gradient are those of a p whose rest is spread in the proportions of q (held fixed): q
learns nothing about the rest but its mass. Dropping the rest and renormalising would teach q to
give the other tokens no mass at all, so that even q = p would have a gradient.
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
    """The divergence of the coarse distributions; alpha is an upper bound of the true one."""

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
        """The tokens are there already."""

    def score(self, block: slice, q: Distribution, room: Tensor) -> Scores:
        """Divergence and sum min(p, q) over the k + 1 outcomes; the gradient in q's V logits.

        The lump's logit is the log of the sum of exp of the others': its slope in each of them is
        that token's part of the lump.
        """
        ids = self.top.ids[block].long()
        tiny = torch.finfo(room.dtype).tiny
        others = room.copy_(q.probability).scatter_(1, ids, 0.0)
        rest = others.sum(-1, keepdim=True)
        held = rest.clamp_min(tiny)  # a rest of no mass has a logarithm all the same
        lump = held.log() + q.log_partition.unsqueeze(-1)
        coarse_p = distribution(
            torch.cat(
                (self.top.log_probability[block], self.top.log_rest[block].unsqueeze(-1)), -1
            ).to(room.dtype)
        )
        coarse_q = Distribution(
            torch.cat((q.logits.gather(1, ids), lump), -1),
            torch.cat((q.probability.gather(1, ids), rest), -1),
            q.log_partition,
        )
        alpha = torch.minimum(coarse_p.probability, coarse_q.probability).sum(-1)
        value, gradient = self.divergence.fused(
            coarse_p, coarse_q, torch.empty_like(coarse_q.logits)
        )
        others.mul_(gradient[:, -1:] / held).scatter_(1, ids, gradient[:, :-1])
        return Scores(value, alpha, others)

"""Divergences from a target of which its k likeliest tokens and the mass of the rest are known.

Both distributions are made *coarse*: k outcomes for the tokens that the target named, one for all
others together. p's is as it was kept; q's lump is the sum over q's own other tokens. The
divergence is that of the two coarse distributions, over k + 1 outcomes. It is a divergence still: 0
where and only where q gives each of the k tokens and the rest together what p gives them.

What it leaves out is how the rest is spread inside the lump. By the data-processing inequality an
f-divergence (forward and reverse KL, JSD, TVD) of coarse distributions is at most that of the whole
ones, grows with k, and is equal to it at k = V. So 1 - TVD is *at least* the true alpha, and -log
of it at most the true one; lk_lambda, whose mixture moves with alpha, has no such order.

The same numbers and the same gradient come of spreading p's rest in the proportions of q's (held
fixed): q is not told anything about the rest but its mass. Dropping the rest and renormalising, by
contrast, teaches q to give the other tokens no mass at all, so that even q = p has a gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.divergence.comparison import Scores
from distillspec.divergence.distribution import Distribution, distribution
from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import product_dtype
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.row_pass import (
    Plan,
    RowScores,
    even_plan,
    row_scores,
    rows_that_count,
    sums_from_hidden,
    sums_from_logits,
    wide_precision,
)
from distillspec.divergence.table import Divergence
from distillspec.divergence.top_tokens import TopTokens


class AgainstTopK(NamedTuple):
    """The divergence of the coarse distributions."""

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
        value, gradient = self.divergence.value_and_gradient(
            coarse_p, coarse_q, torch.empty_like(coarse_q.logits)
        )
        others.mul_(gradient[:, -1:] / held).scatter_(1, ids, gradient[:, :-1])
        return Scores(value, alpha, others)


def coarse_divergence(
    divergence: Divergence,
    top: TopTokens,
    draft: Tensor,
    draft_head: OutputHead | None,
    *,
    temperature: float,
    weights: Tensor,
    chunk_tokens: int,
) -> DivergenceSums:
    """Sum of weights [N] * divergence of the coarse distributions.

    draft: hidden states [N, H], or logits [N, V] where `draft_head` is None. temperature: of q, and
    the one that p was kept at. Chunks, precision and gradients as in `chunked_divergence`; the sum
    of alpha is an upper bound of the true one.
    """
    _check(top, draft, draft_head)
    rows = rows_that_count(weights)
    plan = Plan(rows, weights, temperature, chunk_tokens, wide_precision(draft))
    against = AgainstTopK(divergence, top.of(rows))
    if draft_head is None:
        return sums_from_logits(draft, against, plan)
    return sums_from_hidden(draft, draft_head, against, plan)


def coarse_scores(
    divergence: Divergence,
    top: TopTokens,
    draft: Tensor,
    draft_head: OutputHead | None,
    *,
    temperature: float,
    chunk_tokens: int,
) -> RowScores:
    """Each row's divergence and alpha of the coarse distributions, without gradients."""
    _check(top, draft, draft_head)
    dtype = product_dtype(draft)
    plan = even_plan(draft, temperature, chunk_tokens, wide_precision(draft))
    with torch.no_grad(), torch.autocast(draft.device.type, enabled=False):
        q = plan.given(draft) if draft_head is None else plan.projected(draft, draft_head, dtype)
        return row_scores(q, AgainstTopK(divergence, top), None, plan)


def _check(top: TopTokens, draft: Tensor, draft_head: OutputHead | None) -> None:
    vocab_size = draft.shape[-1] if draft_head is None else draft_head.vocab_size
    assert vocab_size == top.vocab_size, "trim the draft to the vocabulary of the kept law"
    assert draft.shape[0] == top.ids.shape[0]

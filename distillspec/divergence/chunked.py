"""Divergences summed over many positions without ever holding all their logits.

Logits of both models exist for one chunk of rows at a time; the gradient is worked out while they
do, so that the backward pass has nothing left to compute. A chunk costs a product for each model's
logits, one for the gradient of the hidden states and one for that of the output weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.divergence.comparison import (
    AcceptanceProbability,
    AgainstTarget,
    AgainstTokens,
    RowComparison,
)
from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import LogitRows, product_dtype
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


def chunked_divergence(
    divergence: Divergence,
    target_hidden: Tensor,
    target_head: OutputHead,
    draft_hidden: Tensor,
    draft_head: OutputHead,
    *,
    temperature: float,
    weights: Tensor,
    chunk_tokens: int,
) -> DivergenceSums:
    """Sum of weights * divergence(softmax(z_p / T), softmax(z_q / T)), from hidden states.

    target_hidden [N, Ht], draft_hidden [N, Hd], weights [N]; both heads score the same V
    tokens. Differentiable, once, in the draft's hidden states, output weight and bias. Products
    are in the dtype of the hidden states, or autocast's; all else is in float32 (float64 where
    given), output-weight gradients included. Rows of weight 0 cost nothing and count nowhere.
    Under `no_grad` no gradient is formed.
    """
    assert target_hidden.shape[0] == draft_hidden.shape[0] == weights.shape[0]
    assert target_head.vocab_size == draft_head.vocab_size, "trim the heads to one vocabulary"
    rows = rows_that_count(weights)
    plan = Plan(
        rows, weights, temperature, chunk_tokens, wide_precision(target_hidden, draft_hidden)
    )
    target = plan.projected(target_hidden, target_head, product_dtype(target_hidden))
    return sums_from_hidden(draft_hidden, draft_head, AgainstTarget(divergence, target), plan)


def chunked_cross_entropy(
    draft_hidden: Tensor,
    draft_head: OutputHead,
    tokens: Tensor,
    *,
    weights: Tensor,
    chunk_tokens: int,
    temperature: float = 1.0,
) -> DivergenceSums:
    """Sum of weights * -log q(token), from hidden states: [N, H], long [N], [N]; alpha is NaN.

    Otherwise as `chunked_divergence`.
    """
    assert draft_hidden.shape[0] == tokens.shape[0] == weights.shape[0]
    rows, precision = rows_that_count(weights), wide_precision(draft_hidden)
    plan = Plan(rows, weights, temperature, chunk_tokens, precision)
    return sums_from_hidden(draft_hidden, draft_head, AgainstTokens(plan.of(tokens)), plan)


def chunked_divergence_from_logits(
    divergence: Divergence,
    p_logits: Tensor,
    q_logits: Tensor,
    *,
    temperature: float,
    weights: Tensor,
    chunk_tokens: int,
) -> DivergenceSums:
    """`chunked_divergence` of logits [N, V] that the models have made themselves.

    For heads that are no plain matrix or are sharded. Beyond the logits given, only their gradient
    is as large; it is formed at once, so that neither model's logits are kept for the backward.
    """
    assert p_logits.shape == q_logits.shape
    assert q_logits.shape[0] == weights.shape[0]
    rows = rows_that_count(weights)
    plan = Plan(rows, weights, temperature, chunk_tokens, wide_precision(p_logits, q_logits))
    return sums_from_logits(q_logits, AgainstTarget(divergence, plan.given(p_logits)), plan)


def cross_entropy_from_logits(
    q_logits: Tensor,
    tokens: Tensor,
    *,
    weights: Tensor,
    chunk_tokens: int,
    temperature: float = 1.0,
) -> DivergenceSums:
    """`chunked_cross_entropy` of logits [N, V] that the draft has made itself."""
    assert q_logits.shape[0] == tokens.shape[0] == weights.shape[0]
    rows = rows_that_count(weights)
    plan = Plan(rows, weights, temperature, chunk_tokens, wide_precision(q_logits))
    return sums_from_logits(q_logits, AgainstTokens(plan.of(tokens)), plan)


def chunked_scores(
    against: Divergence | Tensor,
    target_hidden: Tensor,
    target_head: OutputHead,
    draft_hidden: Tensor,
    draft_head: OutputHead,
    *,
    temperature: float,
    chunk_tokens: int,
) -> RowScores:
    """Each row's divergence, or for tokens (long [N]) min(1, q(token) / p(token)), from hidden."""
    dtypes = product_dtype(target_hidden), product_dtype(draft_hidden)
    plan = even_plan(
        draft_hidden, temperature, chunk_tokens, wide_precision(target_hidden, draft_hidden)
    )
    with torch.no_grad(), torch.autocast(draft_hidden.device.type, enabled=False):
        p = plan.projected(target_hidden, target_head, dtypes[0])
        q = plan.projected(draft_hidden, draft_head, dtypes[1])
        return row_scores(q, _compared(against, p), None, plan)


def scores_from_logits(
    against: Divergence | Tensor,
    p_logits: Tensor,
    q_logits: Tensor,
    *,
    temperature: float,
    chunk_tokens: int,
) -> RowScores:
    """`chunked_scores` of logits [N, V] that the models have made themselves."""
    assert p_logits.shape == q_logits.shape
    plan = even_plan(q_logits, temperature, chunk_tokens, wide_precision(p_logits, q_logits))
    with torch.no_grad(), torch.autocast(q_logits.device.type, enabled=False):
        return row_scores(
            plan.given(q_logits), _compared(against, plan.given(p_logits)), None, plan
        )


def _compared(against: Divergence | Tensor, target: LogitRows) -> RowComparison:
    if isinstance(against, Tensor):
        return AcceptanceProbability(against, target)
    return AgainstTarget(against, target)

"""One pass over the rows of a draft: the entry of `divergence` for training and measurement.

The logits of both models exist for one chunk of rows at a time. The forward pass also forms the
gradients, so the backward pass only scales them. A chunk costs one matrix product for the logits of
each model, one for the gradient of the hidden states and one for that of the output weight. For
small tensors and for tests, `Divergence.reference` gives the same values by autograd.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from distillspec.divergence.comparison import Comparison, RowScorer
from distillspec.divergence.gradients import GivenGradients, HeadGradients, LogitGradients
from distillspec.divergence.logit_rows import (
    GivenLogits,
    LogitRows,
    ModelRows,
    ProjectedLogits,
    RowPlan,
    block_rows,
    spans,
    wide_precision,
)
from distillspec.divergence.reduction import DivergenceSums


class RowScores(NamedTuple):
    """Scores of N rows, without a gradient.

    Attributes:
        value: Divergence, or the score of the comparison, [N].
        alpha: Acceptance rate, [N].
    """

    value: Tensor
    alpha: Tensor


def weighted_sums(
    draft: ModelRows,
    comparison: Comparison,
    *,
    weights: Tensor,
    temperature: float,
    chunk_tokens: int,
) -> DivergenceSums:
    """Sum of weight * score over the rows; differentiable, once, in the draft.

    Args:
        draft: N rows over V tokens. Gradients go to its states, and to weight and bias of its
            head.
        comparison: What the rows are compared with, over the same N rows and V tokens.
        weights: [N]. Rows of weight 0 cost nothing and count nowhere, even if they are NaN.
        temperature: Divides the logits of draft and target.
        chunk_tokens: Rows of one chunk.

    Returns:
        Sums over the rows whose weight is not 0. Products are in the dtype of the hidden states,
        or of autocast. Everything else is in float32 (float64 if given), gradients included. Under
        `no_grad` no gradient is formed.
    """
    assert draft.states.shape[0] == weights.shape[0]
    # 1. Decide which rows count, in which precision, and which gradients are needed.
    rows = rows_that_count(weights)
    precision = wide_precision(*comparison.states, draft.states)
    plan = RowPlan(rows, weights, temperature, chunk_tokens, precision)
    weight, bias = (None, None) if draft.head is None else (draft.head.weight, draft.head.bias)
    wanted = _Wanted(_wants(draft.states), _wants(weight), _wants(bias))
    # Autocast decides the dtype of products, so this comes before `apply` turns it off.
    scorer, logits = comparison.scorer(plan, draft), plan.logits(draft)
    # 2. One pass forms the sums, and the gradients for the backward pass.
    divergence, alpha = _WeightedSums.apply(  # type: ignore[no-untyped-call]
        draft.states, weight, bias, logits, scorer, plan, wanted
    )
    counted = weights.shape[0] if rows is None else rows.shape[0]
    return DivergenceSums(divergence, alpha, torch.tensor(counted, device=weights.device))


@torch.no_grad()
def row_scores(
    draft: ModelRows, comparison: Comparison, *, temperature: float, chunk_tokens: int
) -> RowScores:
    """Score of each row, without gradients; the arguments are those of `weighted_sums`."""
    plan = RowPlan.even(temperature, chunk_tokens, draft.states, *comparison.states)
    scorer, logits = comparison.scorer(plan, draft), plan.logits(draft)
    with torch.autocast(draft.states.device.type, enabled=False):
        return _score_rows(logits, scorer, None, plan)


def rows_that_count(weights: Tensor) -> Tensor | None:
    """Indices of the rows whose weight is not 0, long [M]; None if no weight is 0."""
    rows = weights.detach().nonzero().squeeze(-1)
    return None if rows.shape[0] == weights.shape[0] else rows


def _score_rows(
    draft: LogitRows, scorer: RowScorer, gradients: LogitGradients | None, plan: RowPlan
) -> RowScores:
    """Scores of the M rows that count; `gradients` receives their gradients."""
    count = plan.weights.shape[0] if plan.rows is None else plan.rows.shape[0]
    rows = block_rows(draft.vocab_size, plan.weights.device)
    values = plan.weights.new_empty(count, dtype=plan.precision)
    alphas = torch.empty_like(values)
    # One gradient buffer serves all blocks.
    room = values.new_empty(min(rows, plan.chunk_rows, count), draft.vocab_size)
    for chunk in spans(0, count, plan.chunk_rows):
        # 1. One product for each model gives the logits of the chunk.
        draft.load(chunk)
        scorer.load(chunk)
        for block in spans(chunk.start, chunk.stop, rows):
            # 2. Softmax, divergence and its gradient in the logits, block by block.
            q = draft.distribution(block)
            scores = scorer.score(block, q, room[: block.stop - block.start])
            values[block], alphas[block] = scores.value, scores.alpha
            if gradients is not None:
                gradients.take(block, q, scores.gradient)
        # 3. Two products carry the chunk's gradient on through the head.
        if gradients is not None:
            gradients.finish(chunk)
    return RowScores(values, alphas)


class _Wanted(NamedTuple):
    """The gradients that autograd needs."""

    states: bool
    weight: bool
    bias: bool

    def gradients(
        self, logits: ProjectedLogits | GivenLogits, plan: RowPlan, weights: Tensor
    ) -> HeadGradients | GivenGradients | None:
        if not any(self):
            return None
        if isinstance(logits, GivenLogits):
            return GivenGradients(logits.source, plan.rows, weights, plan.temperature)
        return HeadGradients(
            logits, weights, hidden=self.states, weight=self.weight, bias=self.bias
        )


class _Formed(NamedTuple):
    """A gradient that the forward pass has formed; the backward pass scales it."""

    gradient: Tensor
    dtype: torch.dtype  # of the tensor that the gradient belongs to

    def scaled(self, outer: Tensor) -> Tensor:
        return self.gradient.mul_(outer).to(self.dtype)


class _WeightedSums(torch.autograd.Function):
    """Gradients in the draft's states [N, H or V], output weight [V, H] and bias [V]."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        logits: ProjectedLogits | GivenLogits,
        scorer: RowScorer,
        plan: RowPlan,
        wanted: _Wanted,
    ) -> tuple[Tensor, Tensor]:
        # The plan decides all dtypes from here on.
        with torch.autocast(states.device.type, enabled=False):
            weights = plan.of(plan.weights).to(plan.precision)
            gradients = wanted.gradients(logits, plan, weights)
            values, alphas = _score_rows(logits, scorer, gradients, plan)
            divergence, alpha = (values * weights).sum(), alphas.sum()
        if gradients is not None:
            ctx.formed = tuple(
                None if gradient is None or tensor is None else _Formed(gradient, tensor.dtype)
                for gradient, tensor in zip(
                    gradients.formed(states, plan.rows), (states, weight, bias), strict=True
                )
            )
        ctx.mark_non_differentiable(alpha)
        return divergence, alpha

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        formed: tuple[_Formed | None, ...] | None = ctx.formed
        if formed is None:
            raise RuntimeError(
                "a chunked divergence forms its gradients once, in its forward, and a backward has "
                "used them: call the divergence again for a second backward"
            )
        ctx.formed = None  # they are scaled in place
        scaled = (None if part is None else part.scaled(outer[0]) for part in formed)
        # logits, scorer, plan and wanted have no gradient.
        return (*scaled, *[None] * 4)


def _wants(tensor: Tensor | None) -> bool:
    return torch.is_grad_enabled() and tensor is not None and tensor.requires_grad

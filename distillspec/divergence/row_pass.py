"""One pass over the rows of a draft, block by block: their scores, and gradients on the way.

What the rows are compared with is a `RowComparison`; `chunked.py` and `coarse.py` offer the passes
by what the target's side is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from distillspec.divergence.comparison import RowComparison
from distillspec.divergence.gradients import GivenGradients, HeadGradients, LogitGradients
from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import (
    GivenLogits,
    LogitRows,
    ProjectedLogits,
    block_rows,
    product_dtype,
    spans,
)
from distillspec.divergence.reduction import DivergenceSums


class RowScores(NamedTuple):
    """What each of N rows scores, without any gradient."""

    value: Tensor  # [N]
    alpha: Tensor  # [N]


class Plan(NamedTuple):
    """How the rows of one call are gone through."""

    rows: Tensor | None  # long [M], the rows that count; None: all N
    weights: Tensor  # [N]
    temperature: float
    chunk_rows: int
    precision: torch.dtype  # of softmax, divergence and sums

    def of(self, tensor: Tensor) -> Tensor:
        """[N, ...] -> [M, ...]: the rows that count."""
        return tensor if self.rows is None else tensor[self.rows]

    def projected(self, hidden: Tensor, head: OutputHead, dtype: torch.dtype) -> ProjectedLogits:
        return ProjectedLogits(
            self.of(hidden.detach()),
            head,
            dtype=dtype,
            precision=self.precision,
            temperature=self.temperature,
            chunk_rows=self.chunk_rows,
        )

    def given(self, logits: Tensor) -> GivenLogits:
        return GivenLogits(
            logits, self.rows, precision=self.precision, temperature=self.temperature
        )


def even_plan(rows: Tensor, temperature: float, chunk_tokens: int, precision: torch.dtype) -> Plan:
    """Every row counts, and as much as any other."""
    weights = torch.ones(rows.shape[0], dtype=precision, device=rows.device)
    return Plan(None, weights, temperature, chunk_tokens, precision)


class _Formed(NamedTuple):
    """A gradient formed in the forward, for a backward that has only to scale it."""

    gradient: Tensor
    dtype: torch.dtype  # of the tensor that it is the gradient of

    def scaled(self, outer: Tensor) -> Tensor:
        return self.gradient.mul_(outer).to(self.dtype)


class _Wanted(NamedTuple):
    """Which gradients the caller will ask for."""

    hidden: bool
    weight: bool
    bias: bool

    def gradients(self, logits: ProjectedLogits, weights: Tensor) -> HeadGradients | None:
        if not any(self):
            return None
        return HeadGradients(
            logits, weights, hidden=self.hidden, weight=self.weight, bias=self.bias
        )


def sums_from_hidden(
    hidden: Tensor, head: OutputHead, against: RowComparison, plan: Plan
) -> DivergenceSums:
    """Of the draft's hidden states [N, H]; `against` holds the M rows of `plan`."""
    wanted = _Wanted(_wants(hidden), _wants(head.weight), _wants(head.bias))
    divergence, alpha = _FromHidden.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, head, against, plan, product_dtype(hidden), wanted
    )
    return DivergenceSums(divergence, alpha, _count(plan))


def sums_from_logits(logits: Tensor, against: RowComparison, plan: Plan) -> DivergenceSums:
    """Of logits [N, V] that the draft has made itself."""
    divergence, alpha = _FromLogits.apply(  # type: ignore[no-untyped-call]
        logits, against, plan, _wants(logits)
    )
    return DivergenceSums(divergence, alpha, _count(plan))


class _FromHidden(torch.autograd.Function):
    """Gradients in the draft's hidden states [N, H], output weight [V, H] and bias [V]."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: OutputHead,
        against: RowComparison,
        plan: Plan,
        dtype: torch.dtype,
        wanted: _Wanted,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            logits = plan.projected(hidden, head, dtype)
            weights = plan.of(plan.weights).to(plan.precision)
            gradients = wanted.gradients(logits, weights)
            divergence, alpha = _go_through(logits, against, gradients, plan)
            of_hidden = None if gradients is None else gradients.hidden
            if of_hidden is not None and plan.rows is not None:
                of_rows, of_hidden = of_hidden, of_hidden.new_zeros(hidden.shape)
                of_hidden[plan.rows] = of_rows
        if gradients is not None:
            ctx.formed = (
                None if of_hidden is None else _Formed(of_hidden, hidden.dtype),
                None if gradients.weight is None else _Formed(gradients.weight, weight.dtype),
                None
                if bias is None or gradients.bias is None
                else _Formed(gradients.bias, bias.dtype),
            )
        ctx.mark_non_differentiable(alpha)
        return divergence, alpha

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        formed = _handed_out_once(ctx)
        return (*(None if each is None else each.scaled(outer[0]) for each in formed), *[None] * 5)


class _FromLogits(torch.autograd.Function):
    """The gradient in the draft's logits [N, V]."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, against: RowComparison, plan: Plan, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(logits.device.type, enabled=False):
            weights = plan.of(plan.weights).to(plan.precision)
            gradients = None
            if wanted:
                gradients = GivenGradients(logits, plan.rows, weights, plan.temperature)
                ctx.formed = (_Formed(gradients.logits, logits.dtype),)
            divergence, alpha = _go_through(plan.given(logits), against, gradients, plan)
        ctx.mark_non_differentiable(alpha)
        return divergence, alpha

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (formed,) = _handed_out_once(ctx)
        assert formed is not None
        return formed.scaled(outer[0]), None, None, None


def _go_through(
    draft: LogitRows, against: RowComparison, gradients: LogitGradients | None, plan: Plan
) -> tuple[Tensor, Tensor]:
    """Sums of weights * divergence and of alpha over the M rows that count."""
    values, alphas = row_scores(draft, against, gradients, plan)
    return (values * plan.of(plan.weights).to(plan.precision)).sum(), alphas.sum()


def row_scores(
    draft: LogitRows, against: RowComparison, gradients: LogitGradients | None, plan: Plan
) -> RowScores:
    """Of the M rows that count; their gradients go where they are wanted."""
    weights = plan.of(plan.weights).to(plan.precision)
    count, rows = weights.shape[0], block_rows(draft.vocab_size, weights.device)
    values, alphas = torch.empty_like(weights), torch.empty_like(weights)
    room = weights.new_empty(min(rows, plan.chunk_rows, count), draft.vocab_size)
    for chunk in spans(0, count, plan.chunk_rows):
        draft.load(chunk)
        against.load(chunk)
        for block in spans(chunk.start, chunk.stop, rows):
            q = draft.distribution(block)
            scores = against.score(block, q, room[: block.stop - block.start])
            values[block], alphas[block] = scores.value, scores.alpha
            if gradients is not None:
                gradients.take(block, q, scores.gradient)
        if gradients is not None:
            gradients.finish(chunk)
    return RowScores(values, alphas)


def _handed_out_once(ctx: Any) -> tuple[_Formed | None, ...]:
    """The formed gradients, which are scaled in place: there is no second backward."""
    formed: tuple[_Formed | None, ...] | None = ctx.formed
    if formed is None:
        raise RuntimeError(
            "the gradients of a chunked divergence are formed once, in its forward, and have been "
            "handed out; call it again for a second backward"
        )
    ctx.formed = None
    return formed


def rows_that_count(weights: Tensor) -> Tensor | None:
    """Indices of the rows whose weight is not 0; None where that is all of them."""
    rows = weights.detach().nonzero().squeeze(-1)
    return None if rows.shape[0] == weights.shape[0] else rows


def _count(plan: Plan) -> Tensor:
    counted = plan.weights if plan.rows is None else plan.rows
    return torch.tensor(counted.shape[0], device=counted.device)


def wide_precision(*tensors: Tensor) -> torch.dtype:
    """float32, or float64 if one of the tensors is."""
    precision = torch.float32
    for tensor in tensors:
        precision = torch.promote_types(precision, tensor.dtype)
    return precision


def _wants(tensor: Tensor | None) -> bool:
    return torch.is_grad_enabled() and tensor is not None and tensor.requires_grad

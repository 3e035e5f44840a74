"""Both forms of both models over their common tokens give the same losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distillspec.divergence.comparison import Comparison, TokenLikelihood
from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import ModelRows
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.row_pass import row_scores, weighted_sums
from distillspec.divergence.table import divergence
from distillspec.divergence.top_tokens import top_tokens
from distillspec.training.loss_inputs import LossInputs, TargetOutputs

N, V, LARGER = 7, 11, 13
HOW: dict[str, Any] = {"temperature": 0.8, "chunk_tokens": 3}


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


TARGET_HIDDEN, DRAFT_HIDDEN = drawn(N, 5), drawn(N, 4)


def sums(inputs: LossInputs, comparison: Comparison, weights: Tensor) -> DivergenceSums:
    return weighted_sums(inputs.draft, comparison, weights=weights, **HOW)


def scores(inputs: LossInputs, comparison: Comparison) -> Tensor:
    return row_scores(inputs.draft, comparison, **HOW).value


def both_forms(target_size: int, draft_size: int) -> tuple[LossInputs, LossInputs]:
    """The same rows of both models, as hidden states and as logits."""
    target, draft = OutputHead(drawn(target_size, 5)), OutputHead(drawn(draft_size, 4))
    hidden = TargetOutputs(TARGET_HIDDEN, None).rows(target)
    logits = TargetOutputs(None, target.logits(TARGET_HIDDEN)).rows(target)
    return (
        LossInputs.of(ModelRows(DRAFT_HIDDEN, draft), hidden),
        LossInputs.of(ModelRows(draft.logits(DRAFT_HIDDEN)), logits),
    )


@pytest.mark.parametrize("sizes", [(V, V), (V, LARGER), (LARGER, V)])
def test_both_forms_say_the_same_of_the_common_vocabulary(sizes: tuple[int, int]) -> None:
    weights, tokens = torch.rand(N), torch.arange(N)
    log_p, log_q = (
        torch.log_softmax(OutputHead(drawn(size, hidden.shape[1])).logits(hidden)[:, :V] / 0.8, -1)
        for size, hidden in zip(sizes, (TARGET_HIDDEN, DRAFT_HIDDEN), strict=True)
    )
    nats = (log_p.exp() * (log_p - log_q)).sum(-1)
    likelihood = log_q.gather(1, tokens[:, None])[:, 0]
    acceptance = (likelihood - log_p.gather(1, tokens[:, None])[:, 0]).exp().clamp(max=1.0)
    for inputs in both_forms(*sizes):
        comparison = inputs.divergence(divergence("forward_kl"))
        torch.testing.assert_close(
            sums(inputs, comparison, weights).divergence, (weights * nats).sum()
        )
        torch.testing.assert_close(scores(inputs, comparison), nats)
        torch.testing.assert_close(scores(inputs, inputs.acceptance(tokens)), acceptance)
        found = sums(inputs, TokenLikelihood(tokens), weights).divergence
        torch.testing.assert_close(found, -(weights * likelihood).sum())


@pytest.mark.parametrize("common", [None, V])
def test_without_a_target_the_draft_is_read_over_the_common_vocabulary(common: int | None) -> None:
    head, tokens = OutputHead(drawn(LARGER, 4)), torch.full((N,), (common or LARGER) - 1)
    logits = head.logits(DRAFT_HIDDEN)
    likelihood = torch.log_softmax(logits[:, :common] / 0.8, -1)[:, -1]
    for rows in (ModelRows(DRAFT_HIDDEN, head), ModelRows(logits)):
        inputs = LossInputs.of(rows, TargetOutputs(None, None).rows(None), common)
        found = sums(inputs, TokenLikelihood(tokens), torch.ones(N))
        torch.testing.assert_close(found.divergence, -likelihood.sum())
        assert bool(found.alpha.isnan())


@pytest.mark.parametrize("sizes", [(V, V), (V, LARGER)])
def test_cached_logits_of_all_tokens_give_what_the_target_gives(sizes: tuple[int, int]) -> None:
    """Over the vocabulary that was cached; the draft's may be larger."""
    weights, tokens = torch.rand(N), torch.arange(N)
    target, draft = OutputHead(drawn(sizes[0], 5)), OutputHead(drawn(sizes[1], 4))
    cached = top_tokens(TARGET_HIDDEN, target, k=V, temperature=0.8, chunk_tokens=2)
    exact = both_forms(*sizes)[0]
    for rows in (ModelRows(DRAFT_HIDDEN, draft), ModelRows(draft.logits(DRAFT_HIDDEN))):
        inputs = LossInputs.of(rows, cached)
        for name in ("forward_kl", "tvd"):
            measure = divergence(name)
            mine, theirs = (sums(i, i.divergence(measure), weights) for i in (inputs, exact))
            torch.testing.assert_close(mine, theirs)
            torch.testing.assert_close(*(scores(i, i.divergence(measure)) for i in (inputs, exact)))
        found, expected = (sums(i, TokenLikelihood(tokens), weights) for i in (inputs, exact))
        torch.testing.assert_close(found.divergence, expected.divergence)


def test_logits_take_precedence_over_hidden_states() -> None:
    head = OutputHead(drawn(V, 5))
    rows = TargetOutputs(TARGET_HIDDEN, head.logits(TARGET_HIDDEN)).rows(head)
    assert rows is not None and rows.head is None


def test_cached_logits_know_no_acceptance() -> None:
    cached = top_tokens(
        TARGET_HIDDEN, OutputHead(drawn(V, 5)), k=2, temperature=1.0, chunk_tokens=2
    )
    inputs = LossInputs.of(ModelRows(DRAFT_HIDDEN, OutputHead(drawn(V, 4))), cached)
    with pytest.raises(AssertionError):
        inputs.acceptance(torch.zeros(N, dtype=torch.long))

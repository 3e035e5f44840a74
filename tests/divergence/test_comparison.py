"""Blocks compared with a target, and with tokens."""

from __future__ import annotations

import math

import pytest
import torch

from distillspec.divergence.comparison import TargetDivergence, TokenLikelihood
from distillspec.divergence.distribution import distribution
from distillspec.divergence.logit_rows import ModelRows, RowPlan
from distillspec.divergence.table import divergence


def test_a_target_gives_divergence_alpha_and_gradient_of_the_block_asked_for() -> None:
    p = torch.tensor([[0.9, 0.1], [0.25, 0.75]]).log()
    draft = ModelRows(torch.zeros(2, 2))
    comparison = TargetDivergence(divergence("forward_kl"), ModelRows(p))
    scorer = comparison.scorer(RowPlan.even(1.0, 2, p), draft)
    scorer.load(slice(0, 2))
    q, room = distribution(torch.zeros(1, 2)), torch.empty(1, 2)
    scores = scorer.score(slice(1, 2), q, room)
    assert scores.alpha.item() == pytest.approx(0.75)
    assert scores.value.item() == pytest.approx(math.log(2) - 0.5623351446)
    torch.testing.assert_close(scores.gradient, torch.tensor([[0.25, -0.25]]))


def test_tokens_give_their_negative_log_likelihood_and_no_alpha() -> None:
    draft = ModelRows(torch.zeros(3, 2))
    plan = RowPlan.even(1.0, 3, draft.states)
    scorer = TokenLikelihood(torch.tensor([1, 0, 1])).scorer(plan, draft)
    scorer.load(slice(0, 3))
    q = distribution(torch.tensor([[0.75, 0.25]]).log())
    scores = scorer.score(slice(1, 2), q, torch.empty(1, 2))
    assert scores.value.item() == pytest.approx(-math.log(0.75))
    assert scores.alpha.isnan().all()
    torch.testing.assert_close(scores.gradient, torch.tensor([[-0.25, 0.25]]))


def test_models_of_unequal_vocabularies_are_a_fault_of_ours() -> None:
    draft, target = ModelRows(torch.zeros(2, 3)), ModelRows(torch.zeros(2, 2))
    with pytest.raises(AssertionError, match="trim"):
        TargetDivergence(divergence("tvd"), target).scorer(
            RowPlan.even(1.0, 2, draft.states), draft
        )

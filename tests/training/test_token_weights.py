from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillspec.recipe.distill import DistillConfig
from distillspec.training.token_weights import StepStatistics

PLUS = DistillConfig(divergence="tvd_plus", source={"draft": 1.0})
HALF = DistillConfig(select={"keep": 0.5, "reference": "draft"})


def rewarded(*rewards: float) -> StepStatistics:
    return StepStatistics(torch.tensor(rewards), None, torch.zeros(len(rewards)))


def with_gaps(*gaps: float) -> StepStatistics:
    return StepStatistics(None, torch.tensor(gaps), torch.zeros(len(gaps)))


def given(advantages: Tensor | None) -> list[float]:
    assert advantages is not None
    return advantages.tolist()


def test_advantages_have_mean_0_and_deviation_1_over_the_whole_step() -> None:
    step = [rewarded(1.0, 0.0, 0.0), rewarded(0.0)]
    found = [a for batch in step for a in given(batch.weights(step, PLUS).advantages)]
    assert found == pytest.approx([0.75 / 0.1875**0.5, *[-0.25 / 0.1875**0.5] * 3])


def test_rewards_that_are_all_the_same_teach_nothing() -> None:
    for reward in (0.0, 1.0):
        step = [rewarded(reward, reward), rewarded(reward)]
        assert given(step[0].weights(step, PLUS).advantages) == [0.0, 0.0]


def test_the_tokens_with_the_largest_gaps_of_the_whole_step_are_kept() -> None:
    step = [with_gaps(3.0, -1.0, 2.0), with_gaps(), with_gaps(5.0, 0.0)]
    kept = [batch.weights(step, HALF).kept(torch.full_like(batch.alpha, 0.5)) for batch in step]
    assert [k.tolist() for k in kept] == [[0.5, 0.0, 0.5], [], [0.5, 0.0]]


def test_a_step_without_tokens_keeps_none() -> None:
    step = [with_gaps()]
    assert step[0].weights(step, HALF).kept(torch.ones(0)).tolist() == []
    none = [rewarded()]
    assert given(none[0].weights(none, PLUS).advantages) == []


def test_without_selection_all_tokens_are_kept() -> None:
    weights = torch.tensor([1.0, 2.0])
    assert rewarded(1.0, 0.0).weights([rewarded(1.0, 0.0)], PLUS).kept(weights) is weights

"""Blocks compared with a target, and with tokens."""

from __future__ import annotations

import math

import pytest
import torch

from distillspec.divergence.comparison import AgainstTarget, AgainstTokens
from distillspec.divergence.distribution import distribution
from distillspec.divergence.logit_rows import GivenLogits
from distillspec.divergence.table import divergence


def test_a_target_gives_divergence_alpha_and_gradient_of_the_block_asked_for() -> None:
    p = torch.tensor([[0.9, 0.1], [0.25, 0.75]]).log()
    target = GivenLogits(p, None, precision=torch.float32, temperature=1.0)
    against = AgainstTarget(divergence("forward_kl"), target)
    against.load(slice(0, 2))
    q, room = distribution(torch.zeros(1, 2)), torch.empty(1, 2)
    scores = against.score(slice(1, 2), q, room)
    assert scores.alpha.item() == pytest.approx(0.75)
    assert scores.value.item() == pytest.approx(math.log(2) - 0.5623351446)
    torch.testing.assert_close(scores.gradient, torch.tensor([[0.25, -0.25]]))


def test_tokens_give_their_negative_log_likelihood_and_no_alpha() -> None:
    against = AgainstTokens(torch.tensor([1, 0, 1]))
    against.load(slice(0, 3))
    q = distribution(torch.tensor([[0.75, 0.25]]).log())
    scores = against.score(slice(1, 2), q, torch.empty(1, 2))
    assert scores.value.item() == pytest.approx(-math.log(0.75))
    assert scores.alpha.isnan().all()
    torch.testing.assert_close(scores.gradient, torch.tensor([[-0.25, 0.25]]))

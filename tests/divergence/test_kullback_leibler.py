"""Properties of the Kullback-Leibler divergences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distillspec.divergence.distribution import distribution
from distillspec.divergence.kullback_leibler import (
    forward_kl,
    fused_forward_kl,
    fused_reverse_kl,
    reverse_kl,
)


def logits(count: int, seed: int) -> Tensor:
    return torch.randn(
        2, count, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def test_a_hand_sum() -> None:
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    expected = 0.5 * math.log(2.0) + 0.5 * math.log(2.0 / 3.0)
    assert forward_kl(p, q).item() == pytest.approx(expected)
    assert reverse_kl(p, q).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_one_direction_is_the_other_with_the_sides_exchanged() -> None:
    p_logits, q_logits = logits(20, 0)
    torch.testing.assert_close(forward_kl(p_logits, q_logits), reverse_kl(q_logits, p_logits))


def test_it_is_torchs_own() -> None:
    p_logits, q_logits = logits(20, 1)
    expected = torch.nn.functional.kl_div(
        q_logits.log_softmax(-1), p_logits.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    torch.testing.assert_close(forward_kl(p_logits, q_logits), expected)


def test_it_is_infinite_where_one_side_forbids_what_the_other_emits() -> None:
    everything, no_first = torch.zeros(1, 3), torch.tensor([[-torch.inf, 0.0, 0.0]])
    room = torch.empty(1, 3)
    assert forward_kl(everything, no_first).isposinf().all()
    assert reverse_kl(no_first, everything).isposinf().all()
    assert forward_kl(no_first, everything).item() == pytest.approx(math.log(1.5))
    p, q = distribution(everything), distribution(no_first)
    assert fused_forward_kl(p, q, room).value.isposinf().all()
    assert fused_reverse_kl(q, p, room).value.isposinf().all()
    assert fused_forward_kl(q, p, room).value.item() == pytest.approx(math.log(1.5))
    assert fused_reverse_kl(p, q, room).value.item() == pytest.approx(math.log(1.5))


def test_the_gradient_of_forward_kl_is_q_minus_p() -> None:
    p_logits, q_logits = logits(5, 2)
    p, q = distribution(p_logits), distribution(q_logits)
    found = fused_forward_kl(p, q, torch.empty_like(p_logits)).gradient
    torch.testing.assert_close(found, q_logits.softmax(-1) - p_logits.softmax(-1))

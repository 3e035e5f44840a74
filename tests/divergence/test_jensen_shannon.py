"""Properties of the generalised Jensen-Shannon divergence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distillspec.divergence.jensen_shannon import jensen_shannon
from distillspec.divergence.kullback_leibler import forward_kl, reverse_kl


def logits(size: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(2, 30, 12, dtype=torch.float64, generator=generator)


def test_a_hand_sum() -> None:
    p, q = torch.tensor([1.0, 0.0]).log(), torch.tensor([0.5, 0.5]).log()
    expected = 0.25 * math.log(1 / 0.625) + 0.75 * (
        0.5 * math.log(0.5 / 0.625) + 0.5 * math.log(0.5 / 0.375)
    )
    assert jensen_shannon(p, q, 0.25).item() == pytest.approx(expected)


def test_at_one_half_it_is_symmetric_and_at_most_log_two() -> None:
    p_logits, q_logits = logits(30.0, 0)
    value = jensen_shannon(p_logits, q_logits, 0.5)
    torch.testing.assert_close(value, jensen_shannon(q_logits, p_logits, 0.5))
    assert bool((value <= math.log(2.0) + 1e-12).all())
    p, q = torch.tensor([0.0, -torch.inf]), torch.tensor([-torch.inf, 0.0])
    assert jensen_shannon(p, q, 0.5).item() == pytest.approx(math.log(2.0))


def test_exchanging_the_sides_exchanges_the_weights() -> None:
    p_logits, q_logits = logits(2.0, 1)
    torch.testing.assert_close(
        jensen_shannon(p_logits, q_logits, 0.2), jensen_shannon(q_logits, p_logits, 0.8)
    )


@pytest.mark.parametrize("small", [1e-3, 1e-5])
def test_it_tends_to_forward_kl_as_the_weight_goes_to_zero(small: float) -> None:
    p_logits, q_logits = logits(1.0, 2)
    value = jensen_shannon(p_logits, q_logits, small) / small
    torch.testing.assert_close(value, forward_kl(p_logits, q_logits), rtol=300 * small, atol=0)


@pytest.mark.parametrize("small", [1e-3, 1e-5])
def test_it_tends_to_reverse_kl_as_the_weight_goes_to_one(small: float) -> None:
    p_logits, q_logits = logits(1.0, 3)
    value = jensen_shannon(p_logits, q_logits, 1 - small) / small
    torch.testing.assert_close(value, reverse_kl(p_logits, q_logits), rtol=300 * small, atol=0)

"""Properties of the total variation distance."""

from __future__ import annotations

import torch

from distillspec.divergence.distribution import distribution
from distillspec.divergence.total_variation import fused_total_variation, total_variation


def test_a_hand_sum() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.2, 0.3, 0.5])
    torch.testing.assert_close(total_variation(p.log(), q.log()), torch.tensor(0.5))


def test_it_lies_between_zero_and_one_and_is_symmetric() -> None:
    p_logits, q_logits = 30 * torch.randn(2, 64, 20, generator=torch.Generator().manual_seed(1))
    value = total_variation(p_logits, q_logits)
    assert bool((value >= 0).all()) and bool((value <= 1 + 1e-6).all())
    torch.testing.assert_close(total_variation(q_logits, p_logits), value)


def test_disjoint_distributions_are_at_distance_one() -> None:
    p, q = torch.tensor([0.0, -torch.inf]), torch.tensor([-torch.inf, 0.0])
    assert total_variation(p, q) == 1.0


def test_the_gradient_is_the_published_one() -> None:
    p_logits, q_logits = torch.randn(
        2, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    p, q = p_logits.softmax(-1), q_logits.softmax(-1)
    sign = torch.sign(q - p) / 2
    expected = q * (sign - (q * sign).sum(-1, keepdim=True))
    found = fused_total_variation(
        distribution(p_logits), distribution(q_logits), torch.empty_like(p)
    )
    torch.testing.assert_close(found.gradient, expected)

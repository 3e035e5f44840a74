"""Properties of the acceptance rate."""

from __future__ import annotations

import torch

from distillspec.divergence.acceptance import acceptance
from distillspec.divergence.total_variation import total_variation


def test_a_hand_sum() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.2, 0.3, 0.5])
    torch.testing.assert_close(acceptance(p.log(), q.log()), torch.tensor(0.5))


def test_alpha_is_one_minus_total_variation() -> None:
    p_logits, q_logits = torch.randn(2, 3, 5, 40, generator=torch.Generator().manual_seed(0))
    alpha = acceptance(p_logits, q_logits)
    assert alpha.shape == (3, 5)
    torch.testing.assert_close(alpha, 1 - total_variation(p_logits, q_logits))
    torch.testing.assert_close(acceptance(q_logits, p_logits), alpha)


def test_equal_distributions_are_always_accepted_and_disjoint_ones_never() -> None:
    logits = torch.tensor([0.0, 1.0, -torch.inf])
    torch.testing.assert_close(acceptance(logits, logits + 7), torch.tensor(1.0))
    other = torch.tensor([-torch.inf, -torch.inf, 0.0])
    assert acceptance(logits, other) == 0.0

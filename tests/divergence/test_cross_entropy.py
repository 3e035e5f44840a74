"""Negative log likelihood."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from distillspec.divergence.cross_entropy import cross_entropy, fused_cross_entropy
from distillspec.divergence.distribution import distribution


def test_it_is_torchs_own_in_value_and_gradient() -> None:
    logits = torch.randn(
        6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    tokens = torch.tensor([0, 8, 3, 3, 5, 1])
    expected = F.cross_entropy(logits, tokens, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(cross_entropy(logits, tokens), expected)
    q = distribution(logits.detach())
    found = fused_cross_entropy(q, tokens, torch.empty_like(q.logits))
    torch.testing.assert_close(found.value, expected.detach())
    torch.testing.assert_close(found.gradient, gradient)


def test_a_forbidden_token_costs_infinitely_much_and_others_do_not_notice() -> None:
    logits = torch.tensor([[-torch.inf, 0.0], [-torch.inf, 0.0]])
    value = cross_entropy(logits, torch.tensor([0, 1]))
    assert value.tolist() == [torch.inf, 0.0]

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distillspec.divergence.distribution import distribution
from distillspec.divergence.kullback_leibler import forward_kl
from distillspec.divergence.lk import (
    LEAST_ALPHA,
    fused_lk_alpha,
    fused_lk_lambda,
    lk_alpha,
    lk_lambda,
)
from distillspec.divergence.total_variation import total_variation


def pair(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, 5, 7, dtype=torch.float64, generator=generator)
    return p, q


def test_lk_alpha_is_minus_the_logarithm_of_the_acceptance_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    assert float(lk_alpha(p, q)) == pytest.approx(math.log(2))


def test_a_cold_draft_has_a_gradient_still() -> None:
    """Where alpha is far below what the logarithm is told to, its slope there is kept."""
    p = torch.tensor([[0.0, -40.0, -40.0]], dtype=torch.float64)
    q = torch.tensor([[-40.0, 0.0, -1.0]], dtype=torch.float64)
    room = torch.empty_like(q)
    value, gradient = fused_lk_alpha(distribution(p), distribution(q), room)
    assert float(value) == pytest.approx(-math.log(LEAST_ALPHA))
    leaf = q.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total_variation(p, leaf).sum() / LEAST_ALPHA, leaf)
    assert float(gradient.abs().max()) > 0.0
    torch.testing.assert_close(gradient, expected)
    assert float(gradient[0, 0]) < 0.0  # the token that the target wants is raised


@pytest.mark.parametrize("eta", [0.0, 3.0])
def test_lk_lambda_by_hand(eta: float) -> None:
    p, q = pair(1)
    distance, nats = total_variation(p, q), forward_kl(p, q)
    share = torch.exp(-eta * (1.0 - distance))
    torch.testing.assert_close(lk_lambda(p, q, eta=eta), share * nats + (1 - share) * distance)
    if eta == 0.0:
        torch.testing.assert_close(lk_lambda(p, q, eta=eta), nats)


def test_the_gradient_of_lk_lambda_is_that_of_a_mixture_held_fixed() -> None:
    p, q = pair(2)
    eta, step = 3.0, 1e-6
    share = torch.exp(-eta * (1.0 - total_variation(p, q)))

    def held(logits: Tensor) -> Tensor:
        return share * forward_kl(p, logits) + (1.0 - share) * total_variation(p, logits)

    room = torch.empty_like(q)
    gradient = fused_lk_lambda(distribution(p), distribution(q), room, eta=eta).gradient
    for token in range(q.shape[1]):
        moved = torch.zeros_like(q)
        moved[:, token] = step
        slope = (held(q + moved) - held(q - moved)) / (2 * step)
        torch.testing.assert_close(gradient[:, token], slope, rtol=1e-6, atol=1e-9)


def test_the_colder_the_draft_the_more_lk_lambda_is_a_forward_kl() -> None:
    p = torch.tensor([0.9, 0.1]).log()
    shares = []
    for q in (torch.tensor([0.1, 0.9]).log(), torch.tensor([0.8, 0.2]).log()):
        distance, nats = total_variation(p, q), forward_kl(p, q)
        shares.append(float((lk_lambda(p, q, eta=3.0) - distance) / (nats - distance)))
    assert shares[0] > shares[1]

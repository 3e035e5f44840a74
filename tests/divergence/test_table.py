"""Properties that every divergence has, whatever its name."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from distillspec.divergence.distribution import distribution
from distillspec.divergence.table import (
    DIVERGENCES,
    Divergence,
    DivergenceSettings,
    divergence,
    mixture,
)
from distillspec.errors import DistillSpecError
from distillspec.recipe.loss import Term

MIXED = {"forward_kl": 0.25, "tvd": 2.0, "lk_alpha": 0.5}
EVERY = [
    *(divergence(name) for name in DIVERGENCES),
    divergence("jsd", DivergenceSettings(jsd_weight=0.1)),
    divergence("lk_lambda", DivergenceSettings(lk_eta=0.5)),
    mixture(MIXED),
]
every_divergence = pytest.mark.parametrize("measure", EVERY, ids=lambda each: each.name)


def pair(seed: int, *, rows: int = 6, size: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p, q = size * torch.randn(2, rows, 9, dtype=torch.float64, generator=generator)
    return p, q


def analytic(measure: Divergence, p_logits: Tensor, q_logits: Tensor) -> tuple[Tensor, Tensor]:
    room = torch.empty_like(q_logits)
    return measure.fused(distribution(p_logits), distribution(q_logits), room)


def test_the_table_holds_what_a_recipe_may_name() -> None:
    of_texts = ["nll", "tvd_plus", "block_efficiency"]
    assert sorted([*DIVERGENCES, *of_texts]) == sorted(get_args(Term))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_knows_its_name(name: str) -> None:
    assert divergence(name).name == name


def test_an_unknown_name_is_a_users_error_that_lists_the_known_ones() -> None:
    with pytest.raises(DistillSpecError, match="unknown divergence 'kl'") as caught:
        divergence("kl")
    assert "forward_kl" in caught.value.fix


def test_the_jensen_shannon_weight_is_used() -> None:
    p, q = pair(0)
    tenth, half = divergence("jsd", DivergenceSettings(jsd_weight=0.1)), divergence("jsd")
    assert not torch.allclose(tenth.reference(p, q), half.reference(p, q))


def test_a_mixture_is_the_weighted_sum() -> None:
    p, q = pair(0)
    expected = sum(weight * divergence(name).reference(p, q) for name, weight in MIXED.items())
    torch.testing.assert_close(mixture(MIXED).reference(p, q), expected)
    assert mixture(MIXED).name == "0.25 forward_kl + 2 tvd + 0.5 lk_alpha"


def test_a_mixture_of_one_is_that_one() -> None:
    assert mixture({"tvd": 1.0}) == divergence("tvd")


@every_divergence
def test_it_is_zero_between_equal_distributions_whatever_the_shift(measure: Divergence) -> None:
    p, _ = pair(1)
    torch.testing.assert_close(measure.reference(p, p + 3.0), torch.zeros(6, dtype=torch.float64))
    value, gradient = analytic(measure, p, p)
    torch.testing.assert_close(value, torch.zeros_like(value))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


@every_divergence
def test_it_is_not_negative(measure: Divergence) -> None:
    p, q = pair(2, rows=200, size=5.0)
    assert bool((measure.reference(p, q) >= 0).all())


@every_divergence
def test_a_gradient_in_logits_sums_to_zero(measure: Divergence) -> None:
    _, gradient = analytic(measure, *pair(3))
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(6, dtype=torch.float64))


@every_divergence
def test_the_analytic_form_is_that_of_autograd(measure: Divergence) -> None:
    p, q = pair(4, size=3.0)
    leaf = q.clone().requires_grad_()
    expected = measure.reference(p, leaf)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(analytic(measure, p, q), (expected.detach(), gradient))


@pytest.mark.parametrize(
    "measure", [one for one in EVERY if one.name != "lk_lambda"], ids=lambda each: each.name
)
def test_the_gradient_is_that_of_finite_differences(measure: Divergence) -> None:
    """Of LK-lambda it is not: its mixture is held fixed, see test_lk.py."""
    p, q = pair(5)
    _, gradient = analytic(measure, p, q)
    step = 1e-6
    for token in range(q.shape[1]):
        moved = torch.zeros_like(q)
        moved[:, token] = step
        slope = (measure.reference(p, q + moved) - measure.reference(p, q - moved)) / (2 * step)
        torch.testing.assert_close(gradient[:, token], slope, rtol=1e-6, atol=1e-9)


@every_divergence
def test_the_inputs_of_the_analytic_form_stay_as_they_were(measure: Divergence) -> None:
    p_logits, q_logits = pair(6)
    p, q = distribution(p_logits.clone()), distribution(q_logits.clone())
    measure.fused(p, q, torch.empty_like(p_logits))
    for side, logits in ((p, p_logits), (q, q_logits)):
        assert torch.equal(side.logits, logits)
        assert torch.equal(side.probability, logits.softmax(-1))


@every_divergence
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tokens_that_both_sides_forbid_change_nothing(
    measure: Divergence, dtype: torch.dtype
) -> None:
    p, q = (side.to(dtype) for side in pair(7))
    forbidden = torch.full((6, 2), -torch.inf, dtype=dtype)
    expected_value, expected_gradient = analytic(measure, p, q)
    padded = [torch.cat([side, forbidden], -1) for side in (p, q)]
    value, gradient = analytic(measure, *padded)
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(gradient[:, :9], expected_gradient)
    assert torch.equal(gradient[:, 9:], torch.zeros_like(forbidden))
    leaf = padded[1].clone().requires_grad_()
    torch.testing.assert_close(measure.reference(padded[0], leaf).detach(), value)
    (by_autograd,) = torch.autograd.grad(measure.reference(padded[0], leaf).sum(), leaf)
    torch.testing.assert_close(by_autograd, gradient)


@every_divergence
def test_a_token_that_the_target_forbids_is_no_nan(measure: Divergence) -> None:
    p, q = pair(8)
    p[:, 0] = -torch.inf
    leaf = q.clone().requires_grad_()
    value = measure.reference(p, leaf)
    analytic_value, gradient = analytic(measure, p, q)
    torch.testing.assert_close(analytic_value, value.detach())
    if measure.name == "reverse_kl":
        assert value.isposinf().all()
    else:
        (by_autograd,) = torch.autograd.grad(value.sum(), leaf)
        torch.testing.assert_close(gradient, by_autograd)


@every_divergence
def test_probabilities_that_underflow_are_no_nan(measure: Divergence) -> None:
    p = torch.tensor([[0.0, -200.0, -90.0, -95.0]])
    q = torch.tensor([[-200.0, 0.0, -95.0, -90.0]])
    value, gradient = analytic(measure, p, q)
    torch.testing.assert_close(value, measure.reference(p, q))
    assert value.isfinite().all() and gradient.isfinite().all()


@every_divergence
def test_a_nan_in_a_row_is_told_and_stays_in_its_row(measure: Divergence) -> None:
    p, q = pair(9)
    q[1, 4] = torch.nan
    value, gradient = analytic(measure, p, q)
    assert value.isnan().tolist() == [False, True, False, False, False, False]
    assert gradient.isnan().any(-1).tolist() == value.isnan().tolist()


@every_divergence
def test_half_precision_is_worked_out_in_float32(measure: Divergence) -> None:
    p, q = (side.bfloat16() for side in pair(10))
    value = measure.reference(p, q)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, measure.reference(p.float(), q.float()))

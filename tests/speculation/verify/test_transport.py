from __future__ import annotations

import itertools

import pytest
import torch

from distillspec.speculation.verify.transport import (
    optimal_acceptance,
    optimal_plan,
    verify_transport,
)
from tests.speculation.verify.exact import Model, adversarial, random_model, sizes, tree_distance

SOLVED = 1e-6  # what the solver promises


@sizes
def test_the_joint_law_of_a_round_is_the_targets(V: int, L: int, K: int, zeros: float) -> None:
    p, q = random_model(V, L, 1, zeros=zeros), random_model(V, L, 2, zeros=zeros)
    assert tree_distance(verify_transport, p, q, V, L, K) < SOLVED


@adversarial
def test_the_joint_law_holds_for_adversarial_pairs(p: Model, q: Model) -> None:
    assert tree_distance(verify_transport, p, q, 3, 1, 2) < SOLVED


@pytest.mark.parametrize(("V", "K"), [(2, 1), (3, 2), (4, 2), (3, 3), (2, 4)])
@pytest.mark.parametrize("seed", range(5))
def test_the_program_reaches_its_closed_form(V: int, K: int, seed: int) -> None:
    p, q = random_model(V, 0, seed)([]), random_model(V, 0, 50 + seed, zeros=0.3)([])
    plan, value = optimal_plan(p, q, K)
    assert value == pytest.approx(optimal_acceptance(p, q, K), abs=1e-8)
    assert torch.allclose(plan.flatten(0, -2).sum(0), p, atol=1e-8)


@pytest.mark.parametrize("K", [1, 2, 3, 8])
@pytest.mark.parametrize("zeros", [0.0, 0.4])
def test_sets_of_small_ratios_are_enough(K: int, zeros: float) -> None:
    for seed in range(20):
        p, q = random_model(7, 0, seed, zeros=zeros)([]), random_model(7, 0, 50 + seed)([])
        if seed % 2:
            p, q = q, p
        sets = (list(one) for n in range(8) for one in itertools.combinations(range(7), n))
        least = min(float(p[one].sum()) - float(q[one].sum()) ** K for one in sets)
        assert optimal_acceptance(p, q, K) == pytest.approx(1.0 + least, abs=1e-12)


def test_one_draft_is_accepted_as_often_as_the_laws_overlap() -> None:
    p, q = random_model(4, 0, 1)([]), random_model(4, 0, 2)([])
    assert optimal_acceptance(p, q, 1) == pytest.approx(float(torch.minimum(p, q).sum()))

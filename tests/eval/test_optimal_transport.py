from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from eval.bench.optimal_transport import (
    optimal_acceptance,
    optimal_plan,
    verify_transport,
)
from tests.speculation.verify.exact import Model, adversarial, random_model, sizes, tree_distance

SOLVED = 1e-12


@sizes
def test_the_joint_distribution_of_a_round_is_the_targets(
    V: int, L: int, K: int, zeros: float
) -> None:
    p, q = random_model(V, L, 1, zeros=zeros), random_model(V, L, 2, zeros=zeros)
    assert tree_distance(verify_transport, p, q, V, L, K) < SOLVED


@adversarial
def test_the_joint_distribution_holds_for_adversarial_pairs(p: Model, q: Model) -> None:
    assert tree_distance(verify_transport, p, q, 3, 1, 2) < SOLVED


@pytest.mark.parametrize(("V", "K"), [(2, 1), (3, 2), (4, 2), (3, 3), (2, 4)])
@pytest.mark.parametrize("seed", range(5))
def test_the_program_reaches_its_closed_form(V: int, K: int, seed: int) -> None:
    p, q = random_model(V, 0, seed)([]), random_model(V, 0, 50 + seed, zeros=0.3)([])
    plan, value = optimal_plan(p, q, K)
    assert value == pytest.approx(optimal_acceptance(p, q, K), abs=1e-12)
    assert torch.allclose(plan.flatten(0, -2).sum(0), p, atol=1e-12)


def test_there_is_a_plan_for_every_pair_and_it_is_the_best() -> None:
    """Pairs with zeros, of equal distributions, with tiny masses and in single precision."""
    found = 0
    for seed in range(500):
        draws = np.random.default_rng(seed)
        V, K = int(draws.integers(2, 6)), int(draws.integers(1, 6))
        if V ** (K + 1) > 1000:
            continue
        p, q = (torch.from_numpy(draws.dirichlet(np.full(V, 0.6))) for _ in range(2))
        if seed % 3 == 0:
            q[0] = 0.0 if seed % 2 else 1e-300
        if seed % 5 == 0:
            p[-1] *= 1e-12
        p, q = p / p.sum(), q / q.sum()
        if seed % 11 == 0:
            p = q.clone()
        if seed % 7 == 0:
            p, q = p.float(), q.float()
        plan, value = optimal_plan(p, q, K)
        drafts = q.double() / q.double().sum()
        for _ in range(K - 1):
            drafts = drafts[..., None] * (q.double() / q.double().sum())
        assert bool((plan >= 0.0).all())
        assert torch.allclose(plan.sum(-1), drafts, rtol=0.0, atol=1e-14)
        exact_p = p.double() / p.double().sum()
        assert torch.allclose(plan.flatten(0, -2).sum(0), exact_p, rtol=0.0, atol=1e-14)
        exact_q = q.double() / q.double().sum()
        assert value == pytest.approx(optimal_acceptance(exact_p, exact_q, K), abs=1e-14)
        found += 1
    assert found > 350


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


def test_one_draft_is_accepted_as_often_as_the_distributions_overlap() -> None:
    p, q = random_model(4, 0, 1)([]), random_model(4, 0, 2)([])
    assert optimal_acceptance(p, q, 1) == pytest.approx(float(torch.minimum(p, q).sum()))

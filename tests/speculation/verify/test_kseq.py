from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.kseq import (
    kseq_token,
    residual_weights,
    threshold,
    verify_kseq,
)
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.token import verify_token
from distillspec.speculation.verify.walk import walk_down
from eval.bench.optimal_transport import optimal_acceptance
from tests.speculation.branches import mutant, walk
from tests.speculation.verify.exact import (
    EXACT,
    Model,
    adversarial,
    assert_follows_the_argmax,
    assert_keeps_more_of_more_drafts,
    assert_verifies_one_draft_as,
    random_model,
    sizes,
    tree_distance,
)


@sizes
def test_the_joint_distribution_of_a_round_is_the_targets(
    V: int, L: int, K: int, zeros: float
) -> None:
    p, q = random_model(V, L, 1, zeros=zeros), random_model(V, L, 2, zeros=zeros)
    assert tree_distance(verify_kseq, p, q, V, L, K) < EXACT


@adversarial
def test_the_joint_distribution_holds_for_adversarial_pairs(p: Model, q: Model) -> None:
    assert tree_distance(verify_kseq, p, q, 3, 2, 3) < EXACT


def test_merging_equal_drafts_first_fails() -> None:
    """Known wrong: a token drawn twice had two trials."""

    def merged(p: Tensor, q: Tensor, drafts: list[int], random_source: RandomSource) -> int:
        return kseq_token(p, q, list(dict.fromkeys(drafts)), random_source)

    def rule(p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource) -> VerifyResult:
        return walk_down(p, q, tree, random_source, merged)

    p, q = random_model(3, 1, 1), random_model(3, 1, 2)
    assert tree_distance(rule, p, q, 3, 1, 3) > 0.01


@pytest.mark.parametrize(
    ("line", "broken", "inside"),
    [
        ("_1 / (_2 * _3)", "_1 / _3", None),
        ("torch.minimum(_1, _2) * _3", "torch.minimum(_1, _2)", residual_weights),
        ("torch.where(_1.any(), _1, _2)", "torch.where(_1.any(), _2, _2)", residual_weights),
    ],
    ids=["no threshold", "one trial", "p for what is left"],
)
def test_the_distribution_fails_if_a_line_is_broken(line: str, broken: str, inside: Any) -> None:
    token = mutant(kseq_token, line, broken, inside=inside)

    def rule(p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource) -> VerifyResult:
        return walk_down(p, q, tree, random_source, token)

    p, q = random_model(3, 1, 1), random_model(3, 1, 2)
    assert tree_distance(rule, p, q, 3, 1, 3) > 0.001


def acceptance(p: Tensor, q: Tensor, K: int) -> float:
    """How often the emitted token is one of the drafts, by enumeration."""
    met = 0.0

    def trial(random_source: RandomSource) -> bool:
        drafts = random_source.draw(q.expand(K, -1)).tolist()
        return kseq_token(p, q, drafts, random_source) in drafts

    for is_met, branches in walk(trial):
        met += branches.weight * is_met
    return met


@pytest.mark.parametrize("K", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_acceptance_lies_between_the_published_share_of_the_optimum_and_the_optimum(
    K: int, seed: int
) -> None:
    p, q = random_model(4, 0, seed)([]), random_model(4, 0, 50 + seed)([])
    best = optimal_acceptance(p, q, K)
    accepted = acceptance(p, q, K)
    assert (1.0 - (1.0 - 1.0 / K) ** K) * best - 1e-12 <= accepted <= best + 1e-12


@pytest.mark.parametrize("K", [1, 2, 5, 8, 64])
@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_is_the_smallest_that_holds_from_its_safe_side(K: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(2, 50, generator=generator, dtype=torch.float64) * (1 + seed % 4)).softmax(
        -1
    )

    def excess(rho: float) -> float:
        beta = float(torch.minimum(q, p / rho).sum())
        return 1.0 - (1.0 - beta) ** K - rho * beta

    rho, beta = threshold(p, q, K)
    assert 1.0 <= rho <= K
    assert beta == pytest.approx(float(torch.minimum(q, p / rho).sum()), abs=1e-12)
    assert excess(rho) <= 1e-12
    if rho > 1.0:
        assert excess(rho - 1e-6) > 0.0


def test_one_draft_is_verified_as_by_token_verification() -> None:
    assert_verifies_one_draft_as(verify_token, verify_kseq)


def test_more_drafts_are_kept_longer() -> None:
    assert_keeps_more_of_more_drafts(verify_kseq)


def test_at_temperature_zero_it_follows_the_targets_argmax() -> None:
    assert_follows_the_argmax(verify_kseq)

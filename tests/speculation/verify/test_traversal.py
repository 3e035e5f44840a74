from __future__ import annotations

import pytest
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.recursive import verify_recursive_distinct
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.traversal import verify_traversal
from tests.speculation.branches import mutant
from tests.speculation.verify.exact import (
    EXACT,
    Drafting,
    Model,
    adversarial,
    assert_follows_the_argmax,
    assert_verifies_one_draft_as,
    distinct,
    expected_of_trees,
    independent,
    random_model,
    sizes,
    tree_distance,
)

DRAFTS = pytest.mark.parametrize("draft", [independent, distinct])


@DRAFTS
@sizes
def test_the_joint_distribution_of_a_round_is_the_targets(
    draft: Drafting, V: int, L: int, K: int, zeros: float
) -> None:
    p, q = random_model(V, L, 1, zeros=zeros), random_model(V, L, 2, zeros=zeros)
    assert tree_distance(verify_traversal, p, q, V, L, K, draft) < EXACT


@DRAFTS
@adversarial
def test_the_joint_distribution_holds_for_adversarial_pairs(
    p: Model, q: Model, draft: Drafting
) -> None:
    assert tree_distance(verify_traversal, p, q, 3, 2, 3, draft) < EXACT


def test_on_a_chain_it_is_block_verification() -> None:
    assert_verifies_one_draft_as(verify_block, verify_traversal)


def test_the_most_probable_cached_child_accepted_with_p_over_q_fails() -> None:
    """Known wrong: a child that was looked up, not drawn, verified as if it had been drawn."""

    def rule(p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource) -> VerifyResult:
        return verify_traversal(p, q, tree, random_source)

    def most_probable(q: Model, L: int, K: int, branches: RandomSource) -> list[list[int]]:
        sequence: list[int] = []
        while len(sequence) < L:
            sequence.append(int(q(sequence).argmax()))
        return [sequence]

    p, q = random_model(3, 2, 1), random_model(3, 2, 2)
    assert tree_distance(rule, p, q, 3, 2, 1, most_probable) > 0.01


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("_1[_2] = _3 / _4", "_1[_2] = p_of(_2)"),
        ("_without(_1, _2)", "_1"),
        ("_1 / _2 if _3 else _4", "1.0 if _3 else _4"),
    ],
    ids=["p keeps what was rejected", "q keeps it", "w is not taken down"],
)
def test_the_distribution_fails_if_a_line_is_broken(line: str, broken: str) -> None:
    p, q = random_model(3, 2, 1), random_model(3, 2, 2)
    assert tree_distance(mutant(verify_traversal, line, broken), p, q, 3, 2, 2) > 0.001


@pytest.mark.parametrize("seed", range(6))
def test_it_keeps_at_least_as_much_as_recursive_rejection_of_the_same_drafts(seed: int) -> None:
    p, q = random_model(3, 2, seed), random_model(3, 2, 100 + seed)
    expected = expected_of_trees(verify_traversal, p, q, 2, 2, distinct)
    assert expected >= expected_of_trees(verify_recursive_distinct, p, q, 2, 2, distinct) - 1e-12


def test_at_temperature_zero_it_follows_the_targets_argmax() -> None:
    assert_follows_the_argmax(verify_traversal)

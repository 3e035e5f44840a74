from __future__ import annotations

import pytest

from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.multipath import verify_multipath
from tests.speculation.branches import mutant
from tests.speculation.verify.exact import (
    EXACT,
    Model,
    adversarial,
    expected_of_chains,
    expected_of_trees,
    random_model,
    sizes,
    tree_distance,
)


@sizes
def test_the_joint_law_of_a_round_is_the_targets(V: int, L: int, K: int, zeros: float) -> None:
    p, q = random_model(V, L, 1, zeros=zeros), random_model(V, L, 2, zeros=zeros)
    assert tree_distance(verify_multipath, p, q, V, L, K) < EXACT


@adversarial
def test_the_joint_law_holds_for_adversarial_pairs(p: Model, q: Model) -> None:
    assert tree_distance(verify_multipath, p, q, 3, 2, 3) < EXACT


def test_on_a_chain_it_is_block_verification() -> None:
    p, q = random_model(3, 3, 1), random_model(3, 3, 2)
    assert expected_of_trees(verify_multipath, p, q, 3, 1) == pytest.approx(
        expected_of_chains(verify_block, p, q, 3), abs=1e-9
    )


def test_more_paths_are_kept_longer() -> None:
    p, q = random_model(3, 2, 9), random_model(3, 2, 10)
    lengths = [expected_of_trees(verify_multipath, p, q, 2, K) for K in (1, 2, 3)]
    assert lengths[0] < lengths[1] < lengths[2]


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("row / _factored(row.new_tensor(lower + here), lower, K)", "q_here"),
        ("max(drafted", "min(drafted"),
        ("lower + float(y[token])", "lower"),
    ],
    ids=["q as if it were not chosen", "the worst path", "lower paths forgotten"],
)
def test_the_law_fails_if_a_line_is_broken(line: str, broken: str) -> None:
    p, q = random_model(3, 2, 1), random_model(3, 2, 2)
    assert tree_distance(mutant(verify_multipath, line, broken), p, q, 3, 2, 2) > 0.001

from __future__ import annotations

import pytest

from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.multipath import verify_multipath
from tests.speculation.branches import mutant
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
    assert tree_distance(verify_multipath, p, q, V, L, K) < EXACT


@adversarial
def test_the_joint_distribution_holds_for_adversarial_pairs(p: Model, q: Model) -> None:
    assert tree_distance(verify_multipath, p, q, 3, 2, 3) < EXACT


def test_on_a_chain_it_is_block_verification() -> None:
    assert_verifies_one_draft_as(verify_block, verify_multipath)


def test_more_paths_are_kept_longer() -> None:
    assert_keeps_more_of_more_drafts(verify_multipath)


def test_at_temperature_zero_it_follows_the_targets_argmax() -> None:
    assert_follows_the_argmax(verify_multipath)


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("_1 / _factored(_2, _3, _4)", "q_next"),
        ("max(_1, key=_2)", "min(_1, key=_2)"),
        ("_1 + float(_2[_3])", "_1"),
    ],
    ids=["q as if it were not chosen", "the worst path", "lower paths forgotten"],
)
def test_the_distribution_fails_if_a_line_is_broken(line: str, broken: str) -> None:
    p, q = random_model(3, 2, 1), random_model(3, 2, 2)
    assert tree_distance(mutant(verify_multipath, line, broken), p, q, 3, 2, 2) > 0.001

from __future__ import annotations

import pytest

from distillspec.speculation.verify.kseq import verify_kseq
from distillspec.speculation.verify.recursive import (
    after_rejection,
    recursive_token,
    verify_recursive,
    verify_recursive_distinct,
)
from distillspec.speculation.verify.result import TreeRule
from distillspec.speculation.verify.token import verify_token
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

BOTH = pytest.mark.parametrize(
    ("rule", "draft"),
    [(verify_recursive, independent), (verify_recursive_distinct, distinct)],
    ids=["with replacement", "without"],
)


@BOTH
@sizes
def test_the_joint_distribution_of_a_round_is_the_targets(
    rule: TreeRule, draft: Drafting, V: int, L: int, K: int, zeros: float
) -> None:
    p, q = random_model(V, L, 1, zeros=zeros), random_model(V, L, 2, zeros=zeros)
    assert tree_distance(rule, p, q, V, L, K, draft) < EXACT


@BOTH
@adversarial
def test_the_joint_distribution_holds_for_adversarial_pairs(
    p: Model, q: Model, rule: TreeRule, draft: Drafting
) -> None:
    assert tree_distance(rule, p, q, 3, 2, 3, draft) < EXACT


def test_drafts_without_replacement_need_the_rule_that_knows_it() -> None:
    p, q = random_model(3, 1, 1), random_model(3, 1, 2)
    assert tree_distance(verify_recursive, p, q, 3, 1, 2, distinct) > 0.001


def test_the_distribution_fails_if_the_target_keeps_what_was_rejected() -> None:
    broken = mutant(
        recursive_token,
        "torch.where(_1, _2 / _3, _4)",
        "torch.where(_1, _4, _4)",
        inside=after_rejection,
    )

    def rule(p, q, tree, random_source):  # type: ignore[no-untyped-def]
        from distillspec.speculation.verify.walk import walk_down

        return walk_down(p, q, tree, random_source, lambda *of: broken(*of, replacement=True))

    p, q = random_model(3, 1, 1), random_model(3, 1, 2)
    assert tree_distance(rule, p, q, 3, 1, 2) > 0.01


@pytest.mark.parametrize("rule", [verify_recursive, verify_recursive_distinct])
def test_one_draft_is_verified_as_by_token_verification(rule: TreeRule) -> None:
    assert_verifies_one_draft_as(verify_token, rule)


def test_without_replacement_more_is_kept_than_by_k_seq_on_most_pairs() -> None:
    better = 0
    for seed in range(20):
        p, q = random_model(4, 1, seed), random_model(4, 1, 100 + seed)
        without = expected_of_trees(verify_recursive_distinct, p, q, 1, 2, distinct)
        better += without > expected_of_trees(verify_kseq, p, q, 1, 2)
    assert better >= 12


@pytest.mark.parametrize("rule", [verify_recursive, verify_recursive_distinct])
def test_at_temperature_zero_it_follows_the_targets_argmax(rule: TreeRule) -> None:
    assert_follows_the_argmax(rule)

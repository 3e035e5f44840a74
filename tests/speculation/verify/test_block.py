from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.verify.block import acceptance_probabilities, verify_block
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.token import residual, verify_token
from tests.speculation.branches import mutant
from tests.speculation.verify.exact import (
    EXACT,
    Model,
    adversarial,
    chain_distance,
    expected_of_chains,
    random_model,
)


@pytest.mark.parametrize(("V", "L"), [(5, 1), (4, 2), (5, 3), (2, 4)])
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_the_joint_distribution_of_a_round_is_the_targets(V: int, L: int, zeros: float) -> None:
    p, q = random_model(V, L, 1, zeros=zeros), random_model(V, L, 2, zeros=zeros)
    assert chain_distance(verify_block, p, q, V, L) < EXACT


@adversarial
def test_the_joint_distribution_holds_for_adversarial_pairs(p: Model, q: Model) -> None:
    assert chain_distance(verify_block, p, q, 3, 3) < EXACT


@pytest.mark.parametrize("seed", range(12))
def test_it_keeps_at_least_as_much_as_token_verification_in_expectation(seed: int) -> None:
    p, q = random_model(3, 4, seed), random_model(3, 4, 100 + seed)
    by_block, by_token = (
        expected_of_chains(rule, p, q, 3) for rule in (verify_block, verify_token)
    )
    assert by_block >= by_token - 1e-12
    assert by_block > by_token + 1e-4  # on random pairs it is more, not just no less


def test_a_block_of_one_token_is_verified_as_by_token_verification() -> None:
    p, q = random_model(5, 1, 3), random_model(5, 1, 4)
    by_block, by_token = (
        expected_of_chains(rule, p, q, 1) for rule in (verify_block, verify_token)
    )
    assert by_block == pytest.approx(by_token, abs=1e-12)


def test_greedy_drafts_are_kept_up_to_the_first_that_differs() -> None:
    one_hot = torch.eye(4)
    p, q = one_hot[[1, 2, 3, 0]], one_hot[[1, 2, 0]]
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    assert verify_block(p, q, torch.tensor([1, 2, 0]), random_source).tokens == [1, 2, 3]
    assert verify_block(p, p[:3], torch.tensor([1, 2, 3]), random_source).tokens == [1, 2, 3, 0]
    assert verify_block(p, p[:0], torch.empty(0, dtype=torch.long), random_source).tokens == [1]


def test_a_rule_of_cumulative_products_that_goes_under_its_name_fails() -> None:
    """Known wrong: each prefix kept with the product of its ratios, corrected as token by token."""

    def rule(p: Tensor, q: Tensor, tokens: Tensor, random_source: RandomSource) -> VerifyResult:
        drafted = tokens[:, None]
        products = (p[:-1].gather(1, drafted) / q.gather(1, drafted)).squeeze(1).cumprod(0)
        trials = random_source.accept(products).tolist()
        kept = max((i + 1 for i, succeeds in enumerate(trials) if succeeds), default=0)
        last = kept == len(trials)
        following = random_source.draw(p[kept] if last else residual(p[kept], q[kept]))
        return VerifyResult([*tokens[:kept].tolist(), int(following)])

    p, q = random_model(3, 2, 1), random_model(3, 2, 2)
    assert chain_distance(rule, p, q, 3, 2) > 0.01


@pytest.mark.parametrize(
    ("line", "broken", "inside"),
    [
        (
            "_scaled_residual(_1, _2, _3)",
            "_scaled_residual(1.0, _2, _3)",
            None,
        ),
        ("max(_1, default=_2)", "min(_1, default=_2)", None),
        ("1.0 - _1[:, 0]", "1.0", acceptance_probabilities),
    ],
    ids=["unscaled residual", "the first trial", "a surplus of 1"],
)
def test_the_distribution_fails_if_a_line_is_broken(line: str, broken: str, inside: Any) -> None:
    p, q = random_model(3, 3, 5), random_model(3, 3, 6)
    broken_rule = mutant(verify_block, line, broken, inside=inside)
    assert chain_distance(broken_rule, p, q, 3, 3) > 0.001

"""Each closed form equals the exact enumeration of the shipped rule."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.kseq import kseq_token, verify_kseq
from distillspec.speculation.verify.recursive import recursive_token, verify_recursive
from distillspec.speculation.verify.token import verify_token
from eval.bench.expected_lengths import (
    expected_by_block,
    expected_by_token,
    expected_down,
    kseq_distribution,
    recursive_distribution,
)
from tests.speculation.verify.exact import (
    distribution_given,
    expected_accepted,
    fixed_tree,
    random_block,
    random_model,
)


@pytest.mark.parametrize("seed", range(6))
def test_the_expectation_of_token_verification_is_that_of_the_shipped_rule(seed: int) -> None:
    p, q = random_block(5, 4, seed)
    for tokens in ([0, 1, 2, 3], [4, 4, 0, 0], [2, 3], [1], []):
        drafted = torch.tensor(tokens, dtype=torch.long)
        rows = p[: len(tokens) + 1], q[: len(tokens)]
        found = expected_by_token(*rows, drafted)
        assert found == pytest.approx(expected_accepted(verify_token, *rows, drafted), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_the_expectation_of_block_verification_is_that_of_the_shipped_rule(seed: int) -> None:
    p, q = random_block(5, 4, seed)
    for tokens in ([0, 1, 2, 3], [4, 4, 0, 0], [2, 3], [1], []):
        drafted = torch.tensor(tokens, dtype=torch.long)
        rows = p[: len(tokens) + 1], q[: len(tokens)]
        found = expected_by_block(*rows, drafted)
        assert found == pytest.approx(expected_accepted(verify_block, *rows, drafted), abs=1e-12)


@pytest.mark.parametrize("drafts", [[0], [1, 1], [3, 0, 3], [2, 1, 0, 3]])
@pytest.mark.parametrize("seed", range(4))
def test_the_distribution_of_k_seq_given_the_drafts_is_that_of_the_shipped_rule(
    drafts: list[int], seed: int
) -> None:
    p, q = random_model(4, 0, seed, zeros=0.3)([]), random_model(4, 0, 50 + seed)([])
    distribution = distribution_given(lambda branches: kseq_token(p, q, drafts, branches), 4)
    torch.testing.assert_close(kseq_distribution(p, q, drafts), distribution, atol=1e-12, rtol=0.0)


@pytest.mark.parametrize(
    ("drafts", "replacement"),
    [([1], True), ([2, 2, 0], True), ([0, 3, 1, 2], True), ([3], False), ([2, 0, 1, 3], False)],
)
@pytest.mark.parametrize("seed", range(4))
def test_the_distribution_of_recursive_rejection_given_the_drafts_is_that_of_the_shipped_rule(
    drafts: list[int], replacement: bool, seed: int
) -> None:
    p, q = random_model(4, 0, seed, zeros=0.3)([]), random_model(4, 0, 50 + seed)([])
    distribution = distribution_given(
        lambda branches: recursive_token(p, q, drafts, branches, replacement=replacement), 4
    )
    found = recursive_distribution(p, q, drafts, replacement=replacement)
    torch.testing.assert_close(found, distribution, atol=1e-12, rtol=0.0)


@pytest.mark.parametrize(
    ("rule", "distribution"),
    [
        (verify_kseq, kseq_distribution),
        (verify_recursive, partial(recursive_distribution, replacement=True)),
    ],
    ids=["kseq", "recursive"],
)
@pytest.mark.parametrize(
    "sequences",
    [[[1, 2], [1, 0], [0, 2]], [[2, 2], [2, 2]], [[0], [1, 1], [1]], [[1, 0, 2]]],
    ids=["shared", "equal", "of different lengths", "alone"],
)
def test_the_expectation_of_a_tree_is_that_of_the_shipped_rule(
    rule: Any, distribution: Any, sequences: list[list[int]]
) -> None:
    rows = fixed_tree(sequences, random_model(3, 3, 1), random_model(3, 3, 2))
    assert expected_down(*rows, distribution) == pytest.approx(
        expected_accepted(rule, *rows), abs=1e-12
    )


def test_of_no_drafts_none_is_kept() -> None:
    assert (
        expected_down(torch.ones(1, 6) / 6, torch.empty(0, 6), Tree.of([]), kseq_distribution)
        == 0.0
    )

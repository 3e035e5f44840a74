"""One round, exactly: the emitted text, completed by p to G + 1 tokens, is distributed as p."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from distillspec.speculation.random_source import GeneratorSource, RandomSource, passes
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.token import (
    ratios,
    residual,
    verify_token,
    verify_token_rows,
)
from tests.speculation.branches import (
    Branches,
    GridBranches,
    Law,
    distribution_of,
    mutant,
    total_variation,
    walk,
)
from tests.speculation.verify.exact import (
    EXACT,
    Model,
    adversarial,
    chain_distance,
    constant,
    random_block,
    random_model,
)


@pytest.mark.parametrize(("V", "gamma"), [(5, 1), (4, 2), (2, 3), (3, 3)])
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_the_joint_distribution_of_a_round_is_the_targets(V: int, gamma: int, zeros: float) -> None:
    p, q = random_model(V, gamma, 1, zeros=zeros), random_model(V, gamma, 2, zeros=zeros)
    assert chain_distance(verify_token, p, q, V, gamma) < EXACT


@adversarial
def test_the_joint_distribution_holds_for_adversarial_pairs(p: Model, q: Model) -> None:
    assert chain_distance(verify_token, p, q, 3, 2) < EXACT


P_GRID, Q_GRID = constant(0.0, 0.25, 0.75), constant(0.25, 0.5, 0.25)  # ratios 0, 1/2, 1


def test_the_distribution_holds_through_the_comparison_that_ships() -> None:
    assert chain_distance(verify_token, P_GRID, Q_GRID, 3, 2, random_source=GridBranches) < EXACT


def test_the_distribution_fails_if_a_uniform_equal_to_the_probability_accepts() -> None:
    lax = mutant(passes, "_1 < _2", "_1 <= _2")

    def branches(path: Sequence[int]) -> Branches:
        return GridBranches(path, comparison=lax)

    assert chain_distance(verify_token, P_GRID, Q_GRID, 3, 2, random_source=branches) > 0.01


@pytest.mark.parametrize(
    ("line", "broken", "inside"),
    [
        ("residual(_1, _2)", "_1", None),
        ("_leading(_1)", "sum(_1)", None),
        (
            "_1 if _2 else residual(_3, _4)",
            "residual(p[-1], q[-1]) if _2 else residual(_3, _4)",
            None,
        ),
        ("_1.gather(1, _2) / _3.gather(1, _2)", "_1.gather(1, _2)", ratios),
    ],
    ids=["p for the residual", "accepts after a rejection", "bonus less q", "p for p/q"],
)
def test_the_distribution_fails_if_a_line_is_broken(line: str, broken: str, inside: Any) -> None:
    p, q = random_model(3, 2, 1), random_model(3, 2, 2)
    broken_rule = mutant(verify_token, line, broken, inside=inside)
    assert chain_distance(broken_rule, p, q, 3, 2) > 0.01


# --- many rows -----------------------------------------------------------------------------------


def row_verdicts(
    p: Tensor, q: Tensor, tokens: Tensor, random_source: RandomSource, rule: Any = verify_token_rows
) -> list[tuple[int, ...]]:
    result = rule(p, q, tokens, random_source)
    return [
        (*row[:kept], following)
        for row, kept, following in zip(
            tokens.tolist(), result.kept.tolist(), result.following.tolist(), strict=True
        )
    ]


def one_of_the_rows(
    p: Tensor, q: Tensor, tokens: Tensor, random_source: RandomSource
) -> VerifyResult:
    return VerifyResult(list(row_verdicts(p[None], q[None], tokens[None], random_source)[0]))


@pytest.mark.parametrize(("V", "gamma"), [(5, 1), (4, 2), (2, 3)])
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_the_joint_distribution_of_a_row_is_the_targets(V: int, gamma: int, zeros: float) -> None:
    p, q = random_model(V, gamma, 1, zeros=zeros), random_model(V, gamma, 2, zeros=zeros)
    assert chain_distance(one_of_the_rows, p, q, V, gamma) < EXACT


@adversarial
def test_the_joint_distribution_of_a_row_holds_for_adversarial_pairs(p: Model, q: Model) -> None:
    assert chain_distance(one_of_the_rows, p, q, 3, 2) < EXACT


def joint_distribution(p: Tensor, q: Tensor, tokens: Tensor, rule: Any = verify_token_rows) -> Law:
    distribution: Law = defaultdict(float)
    for results, branches in walk(
        lambda random_source: row_verdicts(p, q, tokens, random_source, rule)
    ):
        distribution[tuple(results)] += branches.weight  # type: ignore[index]
    return distribution


TWO_ROWS = (
    torch.stack([random_block(3, 2, seed)[0] for seed in (3, 4)]),
    torch.stack([random_block(3, 2, seed)[1] for seed in (3, 4)]),
    torch.tensor([[0, 1], [2, 0]]),
)


def product_of_the_rows() -> Law:
    rows = []
    for p, q, tokens in zip(*TWO_ROWS, strict=True):
        rows.append(
            distribution_of(
                lambda random_source, p=p, q=q, x=tokens: (
                    verify_token(p, q, x, random_source).tokens
                )
            )  # type: ignore[misc]
        )
    return {
        (first, second): a * b  # type: ignore[dict-item]
        for first, a in rows[0].items()
        for second, b in rows[1].items()
    }


def test_rows_are_verified_as_single_ones_and_independently() -> None:
    assert total_variation(joint_distribution(*TWO_ROWS), product_of_the_rows()) < EXACT


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("_1.cumprod(1).sum(1)", "_1.sum(1)"),
        ("q[_1, _2.clamp(max=_3)]", "q[_1, 0 * _2]"),
        ("_3 = p[_1, _2]", "_3 = p[_1, 0 * _2]"),
        ("_1 < _2", "_1 <= _2"),
    ],
)
def test_the_joint_distribution_fails_if_a_line_is_broken(line: str, broken: str) -> None:
    rule = mutant(verify_token_rows, line, broken)
    assert total_variation(joint_distribution(*TWO_ROWS, rule=rule), product_of_the_rows()) > 0.01


def test_the_acceptance_of_every_drafted_token_is_returned() -> None:
    p, q, tokens = TWO_ROWS
    result = verify_token_rows(p, q, tokens, seeded())
    for row in range(2):
        expected = ratios(p[row], q[row], tokens[row]).clamp(max=1.0)
        assert torch.equal(result.acceptance[row], expected)


# --- the residual --------------------------------------------------------------------------------


def test_the_residual_is_what_p_has_beyond_q() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    assert torch.allclose(residual(p, q), torch.tensor([0.3, 0.1, 0.0]))


def test_without_any_residual_mass_the_draw_is_from_p() -> None:
    p = torch.tensor([0.5, 0.0, 0.5])
    assert torch.equal(residual(p, p), p)
    assert torch.equal(residual(p, p + 1e-7), p)


class NeverAccept(Branches):
    def accept(self, probability: Tensor) -> Tensor:
        return torch.zeros(probability.shape, dtype=torch.bool)


def test_a_rejection_where_p_equals_q_is_corrected_from_p() -> None:
    """In exact arithmetic it cannot happen; by rounding it can."""
    p = torch.tensor([[0.5, 0.0, 0.5]] * 3)
    tokens = torch.tensor([2, 2])
    outcomes = {
        tuple(result.tokens): branches.weight
        for result, branches in walk(
            lambda random_source: verify_token(p, p[:2], tokens, random_source),
            random_source=NeverAccept,
        )
    }
    assert outcomes == {(0,): 0.5, (2,): 0.5}


# --- shapes and ends -----------------------------------------------------------------------------


def seeded() -> RandomSource:
    return GeneratorSource(torch.Generator().manual_seed(0))


def test_without_a_draft_the_next_token_is_drawn_from_p() -> None:
    p = torch.tensor([[0.0, 1.0, 0.0]])
    result = verify_token(p, p[:0], torch.empty(0, dtype=torch.long), seeded())
    assert result.tokens == [1]
    assert result.accepted == 0


def test_an_impossible_token_is_never_kept() -> None:
    p, q = torch.tensor([[0.0, 1.0]] * 5), torch.tensor([[0.999, 0.001]] * 4)
    random_source = seeded()
    for _ in range(300):
        result = verify_token(p, q, torch.tensor([1, 1, 0, 1]), random_source)
        assert result.tokens == [1, 1, 1]


def test_the_inputs_are_left_as_they_were() -> None:
    p, q = torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(0)).softmax(-1)
    before = p.clone(), q.clone()
    verify_token(p, q[:4], torch.tensor([0, 1, 2, 3]), seeded())
    assert torch.equal(p, before[0])
    assert torch.equal(q, before[1])

"""One round, exactly: the emitted text, completed by p to G + 1 tokens, has the law of p."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from distillspec.speculation.chance import Chance, GeneratorChance, passes
from distillspec.speculation.verify.token import residual, verify_token
from tests.speculation.branches import Branches, GridBranches, Law, mutant, total_variation, walk

EXACT = 1e-9
Model = Callable[[Sequence[int]], Tensor]  # context -> [V]


def contexts(V: int, gamma: int) -> list[tuple[int, ...]]:
    return [
        context
        for length in range(gamma + 1)
        for context in itertools.product(range(V), repeat=length)
    ]


def random_model(V: int, gamma: int, seed: int, *, zeros: float = 0.0) -> Model:
    """A distribution of its own for every context; a share of the tokens has probability 0."""
    generator = torch.Generator().manual_seed(seed)
    table = {}
    for context in contexts(V, gamma):
        logits = torch.randn(V, generator=generator, dtype=torch.float64) * 1.5
        is_zero = torch.rand(V, generator=generator) < zeros
        is_zero[torch.randint(V, (1,), generator=generator)] = False
        table[context] = logits.masked_fill(is_zero, -torch.inf).softmax(-1)
    return lambda context: table[tuple(context)]


def constant(*weights: float) -> Model:
    distribution = torch.tensor(weights, dtype=torch.float64)
    return lambda context: distribution


def law_of_target(p: Model, V: int, length: int, begin: tuple[int, ...] = ()) -> Law:
    law: Law = {begin: 1.0}
    while any(len(text) < length for text in law):
        text = next(text for text in law if len(text) < length)
        weight = law.pop(text)
        for token, probability in enumerate(p(text).tolist()):
            if probability > 0.0:
                law[(*text, token)] = weight * probability
    return law


def distance(
    p: Model,
    q: Model,
    V: int,
    gamma: int,
    *,
    verify: Callable[..., Any] = verify_token,
    chance: Callable[[Sequence[int]], Branches] = Branches,
) -> float:
    def one_round(branches: Branches) -> list[int]:
        tokens: list[int] = []
        for _ in range(gamma):
            tokens.append(int(branches.draw(q(tokens))))
        return verify(
            torch.stack([p(tokens[:position]) for position in range(gamma + 1)]),
            torch.stack([q(tokens[:position]) for position in range(gamma)]),
            torch.tensor(tokens),
            branches,
        ).tokens

    law: Law = defaultdict(float)
    for emitted, branches in walk(one_round, chance=chance):
        completed = law_of_target(p, V, gamma + 1, tuple(emitted)) if branches.weight else {}
        for text, weight in completed.items():
            law[text] += branches.weight * weight
    assert sum(law.values()) == pytest.approx(1.0, abs=1e-12)
    return total_variation(law, law_of_target(p, V, gamma + 1))


@pytest.mark.parametrize(("V", "gamma"), [(5, 1), (4, 2), (2, 3), (3, 3)])
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_the_joint_law_of_a_round_is_the_targets(V: int, gamma: int, zeros: float) -> None:
    p = random_model(V, gamma, 1, zeros=zeros)
    q = random_model(V, gamma, 2, zeros=zeros)
    assert distance(p, q, V, gamma) < EXACT


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (constant(0.5, 0.3, 0.2), constant(0.5, 0.3, 0.2)),
        (constant(0.5, 0.5, 0.0), constant(0.0, 0.0, 1.0)),
        (constant(0.0, 1.0, 0.0), constant(0.2, 0.3, 0.5)),
        (constant(0.2, 0.3, 0.5), constant(0.0, 1.0, 0.0)),
        (constant(0.0, 1.0, 0.0), constant(0.0, 1.0, 0.0)),
        (constant(1.0, 0.0, 0.0), constant(0.0, 1.0, 0.0)),
    ],
    ids=["equal", "disjoint", "sure p", "sure q", "both sure", "sure and disjoint"],
)
def test_the_joint_law_holds_for_adversarial_pairs(p: Model, q: Model) -> None:
    assert distance(p, q, 3, 2) < EXACT


P_GRID, Q_GRID = constant(0.0, 0.25, 0.75), constant(0.25, 0.5, 0.25)  # ratios 0, 1/2, 1


def test_the_law_holds_through_the_comparison_that_ships() -> None:
    assert distance(P_GRID, Q_GRID, 3, 2, chance=GridBranches) < EXACT


def test_the_law_fails_if_a_uniform_equal_to_the_probability_accepts() -> None:
    lax = mutant(passes, "uniform < probability", "uniform <= probability")

    def branches(path: Sequence[int]) -> Branches:
        return GridBranches(path, comparison=lax)

    assert distance(P_GRID, Q_GRID, 3, 2, chance=branches) > 0.01


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("residual(p[kept], q[kept])", "p[kept]"),
        ("_leading(chance.accept(ratio).tolist())", "sum(chance.accept(ratio).tolist())"),
        (
            "p[gamma] if kept == gamma else residual",
            "residual(p[-1], q[-1]) if kept == gamma else residual",
        ),
        ("gather(1, drafted) / q.gather(1, drafted)", "gather(1, drafted)"),
    ],
    ids=["p for the residual", "accepts after a rejection", "bonus less q", "p for p/q"],
)
def test_the_law_fails_if_a_line_is_broken(line: str, broken: str) -> None:
    p, q = random_model(3, 2, 1), random_model(3, 2, 2)
    assert distance(p, q, 3, 2, verify=mutant(verify_token, line, broken)) > 0.01


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
        tuple(verdict.tokens): branches.weight
        for verdict, branches in walk(
            lambda chance: verify_token(p, p[:2], tokens, chance), chance=NeverAccept
        )
    }
    assert outcomes == {(0,): 0.5, (2,): 0.5}


# --- shapes and ends -----------------------------------------------------------------------------


def seeded() -> Chance:
    return GeneratorChance(torch.Generator().manual_seed(0))


def test_without_a_draft_the_next_token_is_drawn_from_p() -> None:
    p = torch.tensor([[0.0, 1.0, 0.0]])
    verdict = verify_token(p, p[:0], torch.empty(0, dtype=torch.long), seeded())
    assert verdict.tokens == [1]
    assert verdict.accepted == 0


def test_an_impossible_token_is_never_kept() -> None:
    p, q = torch.tensor([[0.0, 1.0]] * 5), torch.tensor([[0.999, 0.001]] * 4)
    chance = seeded()
    for _ in range(300):
        verdict = verify_token(p, q, torch.tensor([1, 1, 0, 1]), chance)
        assert verdict.tokens == [1, 1, 1]


def test_the_inputs_are_left_as_they_were() -> None:
    p, q = torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(0)).softmax(-1)
    before = p.clone(), q.clone()
    verify_token(p, q[:4], torch.tensor([0, 1, 2, 3]), seeded())
    assert torch.equal(p, before[0])
    assert torch.equal(q, before[1])

"""Exact distributions of one round of verification, every branch of drafting and of the rule
walked.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.result import (
    ChainRule,
    TreeRule,
    VerificationRule,
    VerifyResult,
)
from tests.speculation.branches import Branches, Law, total_variation, walk

EXACT = 1e-9
Model = Callable[[Sequence[int]], Tensor]  # context -> [V]
Drafting = Callable[[Model, int, int, Branches], list[list[int]]]
MakeBranches = Callable[[Sequence[int]], Branches]

sizes = pytest.mark.parametrize(
    ("V", "L", "K", "zeros"),
    [(5, 3, 1, 0.0), (3, 2, 2, 0.0), (3, 2, 2, 0.4), (3, 2, 3, 0.4), (2, 3, 3, 0.0)],
)


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


ADVERSARIAL = {
    "equal": (constant(0.5, 0.3, 0.2), constant(0.5, 0.3, 0.2)),
    "disjoint": (constant(0.5, 0.5, 0.0), constant(0.0, 0.0, 1.0)),
    "sure p": (constant(0.0, 1.0, 0.0), constant(0.2, 0.3, 0.5)),
    "sure q": (constant(0.2, 0.3, 0.5), constant(0.0, 1.0, 0.0)),
    "both sure": (constant(0.0, 1.0, 0.0), constant(0.0, 1.0, 0.0)),
    "sure and disjoint": (constant(1.0, 0.0, 0.0), constant(0.0, 1.0, 0.0)),
    "tied ratios": (constant(0.2, 0.2, 0.6), constant(0.25, 0.25, 0.5)),
}

adversarial = pytest.mark.parametrize(("p", "q"), ADVERSARIAL.values(), ids=list(ADVERSARIAL))


def distribution_of_target(p: Model, V: int, length: int, begin: tuple[int, ...] = ()) -> Law:
    distribution: Law = {begin: 1.0}
    while any(len(text) < length for text in distribution):
        text = next(text for text in distribution if len(text) < length)
        weight = distribution.pop(text)
        for token, probability in enumerate(p(text).tolist()):
            if probability > 0.0:
                distribution[(*text, token)] = weight * probability
    return distribution


# --- drafting ------------------------------------------------------------------------------------


def independent(q: Model, L: int, K: int, branches: Branches) -> list[list[int]]:
    """K sequences of L tokens, each drawn on its own."""
    sequences: list[list[int]] = []
    for _ in range(K):
        sequence: list[int] = []
        for _ in range(L):
            sequence.append(int(branches.draw(q(sequence))))
        sequences.append(sequence)
    return sequences


def distinct(q: Model, L: int, K: int, branches: Branches) -> list[list[int]]:
    """K different first tokens drawn without replacement, each continued by single draws."""
    sequences = []
    left = q([]).clone()
    for _ in range(K):
        if not left.any():
            break
        token = int(branches.draw(left))
        left[token] = 0.0
        sequence = [token]
        while len(sequence) < L:
            sequence.append(int(branches.draw(q(sequence))))
        sequences.append(sequence)
    return sequences


# --- one round -----------------------------------------------------------------------------------


def tree_rounds(
    rule: TreeRule, p: Model, q: Model, L: int, K: int, draft: Drafting = independent
) -> Iterator[tuple[VerifyResult, float]]:
    """Every way a round with K drafts of L tokens can go: the result and its probability."""
    for sequences, drafting in walk(lambda branches: draft(q, L, K, branches)):
        p_rows, q_rows, tree = fixed_tree(sequences, p, q)
        for result, branches in walk(lambda branches: rule(p_rows, q_rows, tree, branches)):  # noqa: B023
            yield result, drafting.weight * branches.weight


def chain_rounds(
    rule: ChainRule, p: Model, q: Model, L: int, random_source: MakeBranches = Branches
) -> Iterator[tuple[VerifyResult, float]]:
    for (tokens,), drafting in walk(
        lambda branches: independent(q, L, 1, branches), random_source=random_source
    ):
        p_rows = torch.stack([p(tokens[:position]) for position in range(L + 1)])
        q_rows = torch.stack([q(tokens[:position]) for position in range(L)])
        drafted = torch.tensor(tokens)
        for result, branches in walk(
            lambda branches: rule(p_rows, q_rows, drafted, branches),  # noqa: B023
            random_source=random_source,
        ):
            yield result, drafting.weight * branches.weight


def distance(rounds: Iterator[tuple[VerifyResult, float]], p: Model, V: int, length: int) -> float:
    """Total variation of what is emitted, completed by p to `length` tokens, and the target's."""
    emitted: Law = defaultdict(float)
    for result, weight in rounds:
        emitted[tuple(result.tokens)] += weight
    assert sum(emitted.values()) == pytest.approx(1.0, abs=1e-12)
    distribution: Law = defaultdict(float)
    for begin, share in emitted.items():
        for text, weight in distribution_of_target(p, V, length, begin).items():
            distribution[text] += share * weight
    return total_variation(distribution, distribution_of_target(p, V, length))


def tree_distance(
    rule: TreeRule, p: Model, q: Model, V: int, L: int, K: int, draft: Drafting = independent
) -> float:
    return distance(tree_rounds(rule, p, q, L, K, draft), p, V, L + 1)


def chain_distance(
    rule: ChainRule, p: Model, q: Model, V: int, L: int, random_source: MakeBranches = Branches
) -> float:
    return distance(chain_rounds(rule, p, q, L, random_source), p, V, L + 1)


def expected_tokens(rounds: Iterator[tuple[VerifyResult, float]]) -> float:
    """Tokens a round emits in expectation, drafting included."""
    return sum(weight * len(result.tokens) for result, weight in rounds)


def expected_of_trees(
    rule: TreeRule, p: Model, q: Model, L: int, K: int, draft: Drafting = independent
) -> float:
    return expected_tokens(tree_rounds(rule, p, q, L, K, draft))


def expected_of_chains(rule: ChainRule, p: Model, q: Model, L: int) -> float:
    return expected_tokens(chain_rounds(rule, p, q, L))


# --- given drafts --------------------------------------------------------------------------------


def random_block(V: int, L: int, seed: int) -> tuple[Tensor, Tensor]:
    """p [L+1, V] and q [L, V] of one text, some tokens of p impossible."""
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, L + 1, V, generator=generator, dtype=torch.float64) * 1.5
    is_zero = torch.rand(p.shape, generator=generator) < 0.2
    is_zero[:, 0] = False
    return p.masked_fill(is_zero, -torch.inf).softmax(-1), q[:-1].softmax(-1)


def expected_accepted(
    rule: VerificationRule, p: Tensor, q: Tensor, drafted: Tensor | Tree
) -> float:
    """Drafted tokens that a rule keeps of these drafts, every branch of it walked."""
    return sum(
        branches.weight * result.accepted
        for result, branches in walk(lambda branches: rule(p, q, drafted, branches))
    )


def distribution_given(rule: Callable[[Branches], int], V: int) -> Tensor:
    """The distribution [V] of a position rule's token, every branch of it walked."""
    distribution = torch.zeros(V, dtype=torch.float64)
    for token, branches in walk(rule):
        distribution[token] += branches.weight
    return distribution


def fixed_tree(
    sequences: Sequence[Sequence[int]], p: Model, q: Model
) -> tuple[Tensor, Tensor, Tree]:
    """p by context, q by row and the tree of given sequences."""
    tree = Tree.of(sequences)
    paths = [[tree.tokens[node] for node in tree.path(at)] for at in range(len(tree) + 1)]
    length = max(map(len, sequences))
    rows = [q(sequence[:i]) for sequence in sequences for i in range(length)]
    return torch.stack([p(path) for path in paths]), torch.stack(rows), tree


# --- what every rule for several drafts does -----------------------------------------------------


def assert_verifies_one_draft_as(chain_rule: ChainRule, rule: TreeRule) -> None:
    """Of a single draft of 3 tokens as much is kept as by a rule for chains."""
    p, q = random_model(4, 3, 7), random_model(4, 3, 8)
    assert expected_of_trees(rule, p, q, 3, 1) == pytest.approx(
        expected_of_chains(chain_rule, p, q, 3), abs=1e-12
    )


def assert_keeps_more_of_more_drafts(rule: TreeRule) -> None:
    p, q = random_model(3, 2, 9), random_model(3, 2, 10)
    lengths = [expected_of_trees(rule, p, q, 2, K) for K in (1, 2, 3)]
    assert lengths[0] < lengths[1] < lengths[2]


def assert_follows_the_argmax(rule: TreeRule) -> None:
    """At temperature 0 there is one outcome: drafts are kept up to the first that differs."""
    one_hot = torch.eye(4, dtype=torch.float64)
    for sequences, argmax, emitted in (
        ([[1, 2]], [1, 0, 3], [1, 0]),
        ([[1, 2], [1, 2]], [1, 2, 3], [1, 2, 3]),
    ):
        tree = Tree.of(sequences)
        p, q = one_hot[argmax], one_hot[[token for sequence in sequences for token in sequence]]
        for result, branches in walk(lambda branches: rule(p, q, tree, branches)):  # noqa: B023
            assert (result.tokens, branches.weight) == (emitted, 1.0)

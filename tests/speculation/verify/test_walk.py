from __future__ import annotations

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.walk import walk_down
from tests.speculation.branches import Branches

TREE = Tree.of([[1, 2], [1, 3], [4, 2]])
ONE_HOT = torch.eye(6)
P = ONE_HOT[[5] * (len(TREE) + 1)]  # the bonus is always 5
Q = torch.arange(6.0).repeat(6, 1) * torch.arange(6.0)[:, None]  # each row holds its number


class Scripted:
    """A position rule that returns a script, and remembers what it was shown."""

    def __init__(self, *tokens: int) -> None:
        self._tokens = iter(tokens)
        self.shown: list[tuple[int, list[int]]] = []

    def __call__(self, p: Tensor, q: Tensor, drafts: list[int], random_source: RandomSource) -> int:
        self.shown.append((int(q[1]), drafts))
        return next(self._tokens)


def test_each_context_shows_its_own_drafts_with_the_q_they_came_from() -> None:
    rule = Scripted(1, 3)
    result = walk_down(P, Q, TREE, Branches(), rule)
    assert result.tokens == [1, 3, 5]
    assert rule.shown == [(0, [1, 1, 4]), (1, [2, 3])]


def test_a_token_that_no_draft_has_ends_the_round() -> None:
    assert walk_down(P, Q, TREE, Branches(), Scripted(0)).tokens == [0]
    assert walk_down(P, Q, TREE, Branches(), Scripted(4, 3)).tokens == [4, 3]


def test_without_drafts_there_is_the_bonus_alone() -> None:
    assert walk_down(P[:1], Q, Tree.of([]), Branches(), Scripted()).tokens == [5]

"""Verification of several drafts position by position: down the tree as long as a draft is met."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.result import VerifyResult


class PositionRule(Protocol):
    def __call__(self, p: Tensor, q: Tensor, drafts: list[int], chance: RandomSource, /) -> int:
        """p [V], q [V], drafted tokens in drawing order (repeated ones too) -> a token ~ p."""
        ...


def walk_down(
    p: Tensor, q: Tensor, tree: Tree, chance: RandomSource, rule: PositionRule
) -> VerifyResult:
    """p [N+1, V] by context, q by the tree's rows -> verdict.

    At each context the rule draws the next token. A token that a draft has there, be it accepted
    or drawn from what is left, leads on to that draft's node; any other one ends the round. After
    a context without drafts the bonus is drawn from p.
    """
    emitted: list[int] = []
    context = 0
    while tree.drawn[context]:
        drafts = [tree.tokens[node] for node in tree.drawn[context]]
        token = rule(p[context], q[tree.q_rows[context]], drafts, chance)
        emitted.append(token)
        node = tree.child(context, token)
        if node is None:
            return VerifyResult(emitted)
        context = node + 1
    return VerifyResult([*emitted, int(chance.draw(p[context]))])

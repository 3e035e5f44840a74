"""Verification of several drafts position by position: down the tree while a draft matches."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.result import VerifyResult


class PositionRule(Protocol):
    """Draws the next token of a context, given the drafts after it."""

    def __call__(
        self, p: Tensor, q: Tensor, drafts: list[int], random_source: RandomSource, /
    ) -> int:
        """p [V], q [V], drafts in drawing order (repeated ones too) -> a token ~ p."""
        ...


def walk_down(
    p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource, rule: PositionRule
) -> VerifyResult:
    """Draw token after token with a position rule, as long as a draft has each token.

    A token that a draft has leads on to the draft's node, be it accepted or drawn from the
    residual. Any other token ends the round. After a context without drafts, the bonus is drawn
    from p.

    Args:
        p: The target's distribution after each context, shape [N+1, V].
        q: The draft's distributions, by the tree's rows.
        tree: The drafted tree of N nodes.
        random_source: The source of every random choice.
        rule: Draws the token at each context.
    """
    emitted: list[int] = []
    context = 0
    while tree.drawn[context]:
        drafts = [tree.tokens[node] for node in tree.drawn[context]]
        token = rule(p[context], q[tree.q_rows[context]], drafts, random_source)
        emitted.append(token)
        node = tree.child(context, token)
        if node is None:
            return VerifyResult(emitted)
        context = node + 1
    return VerifyResult([*emitted, int(random_source.draw(p[context]))])

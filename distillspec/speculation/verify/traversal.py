"""Traversal verification: a tree is verified from its leaves to its root, path by path."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.result import VerifyResult


def verify_traversal(p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource) -> VerifyResult:
    """Traversal verification of a tree. Lossless (2505.12398).

    1. Go down the first remaining child of each context, w(child) = min(1, w p(x)/q(x)), to a leaf.
    2. Accept the leaf with probability w.
    3. Else remove it. With r = (w p - q)_+ and s = sum r its parent takes w <- s / (s + 1 - w),
       p <- r / s, q(x) <- 0, renormalised. Then go on from the parent.
    4. The accepted context draws the next token from its p.

    Equal independent drafts of a context are one child. On a single chain this is block
    verification. Shapes: p [N+1, V] by context, q by the rows of the tree of N nodes.
    """
    reached = [1.0] * (len(tree) + 1)  # w by context
    p_left: dict[int, Tensor] = {}
    q_left: dict[int, Tensor] = {}
    children = [list(dict.fromkeys(nodes)) for nodes in tree.drawn]

    def p_of(context: int) -> Tensor:
        return p_left.get(context, p[context])

    def q_of(context: int) -> Tensor:
        return q_left.get(context, q[tree.q_rows[context]])

    context = 0
    while True:
        # 1. Go down to a leaf. Removals change w, p and q above, so compute w on the way.
        while children[context]:
            node = children[context][0]
            token = tree.tokens[node]
            ratio = float(p_of(context)[token] / q_of(context)[token])
            reached[node + 1] = min(1.0, reached[context] * ratio)
            context = node + 1
        # 2. The root is the empty path, which is always accepted.
        if context == 0 or bool(random_source.accept(p.new_tensor([reached[context]]))):
            break
        # 3. Remove the leaf. Its parent loses what this child could have taken.
        token = tree.tokens[context - 1]
        context = tree.parents[context - 1]
        children[context].pop(0)
        left = (reached[context] * p_of(context) - q_of(context)).clamp(min=0.0)
        s = float(left.sum())
        surplus = s + 1.0 - reached[context]
        reached[context] = s / surplus if surplus > 0.0 else 1.0
        # With s = 0, p stays: either w is 0 now, or w is 1 and p = q up to rounding.
        if s > 0.0:
            p_left[context] = left / s
        q_left[context] = _without(q_of(context), token)
    # 4. The draw uses what p has become after all removals.
    tokens = [tree.tokens[node] for node in tree.path(context)]
    return VerifyResult([*tokens, int(random_source.draw(p_of(context)))])


def _without(q: Tensor, token: int) -> Tensor:
    """q [V] without a token, renormalised; all zero where nothing is left."""
    rest = q.clone()
    rest[token] = 0.0
    mass = rest.sum()
    return torch.where(mass > 0.0, rest / mass, rest)

"""Recursive rejection sampling: after each rejected draft, p loses what that draft could take."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.walk import walk_down


def verify_recursive(p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource) -> VerifyResult:
    """Recursive rejection at each context of a tree of independent drafts. Lossless.

    Args:
        p: The target's distribution after each context, shape [N+1, V].
        q: The draft's distributions, by the tree's rows.
        tree: The drafted tree of N nodes.
        random_source: The source of every random choice.
    """
    return walk_down(p, q, tree, random_source, partial(recursive_token, replacement=True))


def verify_recursive_distinct(
    p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource
) -> VerifyResult:
    """`verify_recursive` for drafts that each context drew without replacement."""
    return walk_down(p, q, tree, random_source, partial(recursive_token, replacement=False))


def recursive_token(
    p: Tensor, q: Tensor, drafts: list[int], random_source: RandomSource, *, replacement: bool
) -> int:
    """The next token, distributed as p, from tokens drawn from q.

    One draft after another is kept with probability min(1, p(x)/q(x)). After a rejected draft, p <-
    norm((p - q)_+); without replacement also q(x) <- 0, renormalised. If none is kept, the token is
    drawn from what p has become.

    Args:
        p: The target's distribution, shape [V].
        q: The draft's distribution, shape [V].
        drafts: Tokens drawn from q, in drawing order.
        random_source: The source of every random choice.
        replacement: Whether they were drawn with replacement.
    """
    for token in drafts:
        if bool(random_source.accept((p[token] / q[token]).view(1))):
            return token
        p, q = after_rejection(p, q, token, replacement=replacement)
    return int(random_source.draw(p))


def after_rejection(
    p: Tensor, q: Tensor, token: int, *, replacement: bool
) -> tuple[Tensor, Tensor]:
    """p and q, each [V], after a draft of that token was rejected."""
    left = (p - q).clamp(min=0.0)
    mass = left.sum()
    # No mass is left where p = q up to rounding; p then stays.
    p = torch.where(mass > 0.0, left / mass, p)
    if not replacement:
        q = q.clone()
        q[token] = 0.0
        q = q / q.sum()  # nan where no token is left, and then no further draft follows
    return p, q

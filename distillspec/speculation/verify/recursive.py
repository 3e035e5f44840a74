"""Recursive rejection sampling: after each draft that is not kept, the target's distribution loses
it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.walk import walk_down


def verify_recursive(p: Tensor, q: Tensor, tree: Tree, chance: RandomSource) -> VerifyResult:
    """p [N+1, V] by context, q by the tree's rows, independent drafts -> verdict. Lossless."""
    return walk_down(p, q, tree, chance, partial(recursive_token, replacement=True))


def verify_recursive_distinct(
    p: Tensor, q: Tensor, tree: Tree, chance: RandomSource
) -> VerifyResult:
    """The same for drafts that were drawn without replacement at each context."""
    return walk_down(p, q, tree, chance, partial(recursive_token, replacement=False))


def recursive_token(
    p: Tensor, q: Tensor, drafts: list[int], chance: RandomSource, *, replacement: bool
) -> int:
    """p [V], q [V], tokens drawn from q with or without replacement -> a token ~ p.

    One draft after another is kept with probability min(1, p(x)/q(x)); after one that is not,
    p <- norm((p - q)_+), and without replacement q(x) <- 0, renormalised. At the end a draw from
    what p has become.
    """
    for token in drafts:
        if bool(chance.accept((p[token] / q[token]).view(1))):
            return token
        p, q = after_rejection(p, q, token, replacement=replacement)
    return int(chance.draw(p))


def after_rejection(
    p: Tensor, q: Tensor, token: int, *, replacement: bool
) -> tuple[Tensor, Tensor]:
    """What p and q become once a draft of that token was not kept."""
    left = (p - q).clamp(min=0.0)
    mass = left.sum()
    p = torch.where(mass > 0.0, left / mass, p)
    if not replacement:
        q = q.clone()
        q[token] = 0.0
        q = q / q.sum()  # nan where nothing is left: then there are no further drafts
    return p, q

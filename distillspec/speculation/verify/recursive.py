"""Recursive rejection sampling: after each draft that is not kept, the target's law loses it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from distillspec.speculation.chance import Chance
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.verdict import Verdict
from distillspec.speculation.verify.walk import walk_down


def verify_recursive(p: Tensor, q: Tensor, tree: Tree, chance: Chance) -> Verdict:
    """p [N+1, V] by context, q by the tree's rows, independent drafts -> verdict. Lossless."""
    return walk_down(p, q, tree, chance, partial(recursive_token, replacement=True))


def verify_recursive_distinct(p: Tensor, q: Tensor, tree: Tree, chance: Chance) -> Verdict:
    """The same for drafts that were drawn without replacement at each context."""
    return walk_down(p, q, tree, chance, partial(recursive_token, replacement=False))


def recursive_token(
    p: Tensor, q: Tensor, drafts: list[int], chance: Chance, *, replacement: bool
) -> int:
    """p [V], q [V], tokens drawn from q with or without replacement -> a token ~ p.

    One draft after another is kept with probability min(1, p(x)/q(x)); after one that is not,
    p <- norm((p - q)_+), and without replacement q(x) <- 0, renormalised. At the end a draw from
    what p has become.
    """
    for token in drafts:
        if bool(chance.accept((p[token] / q[token]).view(1))):
            return token
        left = (p - q).clamp(min=0.0)
        mass = left.sum()
        p = torch.where(mass > 0.0, left / mass, p)
        if not replacement:
            q = q.clone()
            q[token] = 0.0
            rest = q.sum()
            if not bool(rest > 0.0):
                break
            q = q / rest
    return int(chance.draw(p))

"""Greedy multi-path block verification: the best of K paths, and its probability."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.result import VerifyResult


def verify_multipath(p: Tensor, q: Tensor, tree: Tree, chance: RandomSource) -> VerifyResult:
    """p [N+1, V] by context, q by the tree's rows, K independent drafts of one length -> verdict.

    Lossless (2602.16961). Tokens are ordered by p/q, unclamped, the index breaking ties; of the K
    drafts the one of highest order is followed, context by context. It is then a draw from
    q_skew(t) = q(t) F(A+y+z, A+y) / F(A+x, A), F(a, b) = (a^K - b^K) / (a - b), where x is q of the
    path so far, A of all paths of lower order, y = x (q of tokens of lower order than t) and
    z = x q(t). Block verification does the rest.
    """
    K = len(tree.drawn[0])
    lower, here = 0.0, 1.0  # A, x
    context = 0
    contexts, tokens, skewed = [0], [], []
    while tree.drawn[context]:
        p_here, q_here = p[context].double(), q[tree.q_rows[context]].double()
        ratio = torch.where(q_here > 0.0, p_here / q_here, -1.0)
        order = ratio.sort(stable=True).indices  # ascending; equal ratios by rising index
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        below = torch.empty_like(q_here)
        below[order] = q_here[order].cumsum(0) - q_here[order]
        y, z = here * below, here * q_here
        row = q_here * _factored(lower + y + z, lower + y, K)
        skewed.append((row / _factored(row.new_tensor(lower + here), lower, K)).to(p.dtype))
        drafted = set(tree.drawn[context])
        node = max(drafted, key=lambda one: int(place[tree.tokens[one]]))
        token = tree.tokens[node]
        lower, here = lower + float(y[token]), float(z[token])
        context = node + 1
        contexts.append(context)
        tokens.append(token)
    at = torch.tensor(contexts, device=p.device)
    drafted_tokens = torch.tensor(tokens, dtype=torch.long, device=p.device)
    rows = torch.stack(skewed) if skewed else p[:0]
    return verify_block(p[at], rows, drafted_tokens, chance)


def _factored(a: Tensor, b: Tensor | float, K: int) -> Tensor:
    """(a^K - b^K) / (a - b) as the sum of a^(K-1-i) b^i, which does not cancel."""
    total = torch.ones_like(a)
    power = torch.ones_like(a)  # of b
    for _ in range(K - 1):
        power = power * b
        total = total * a + power
    return total

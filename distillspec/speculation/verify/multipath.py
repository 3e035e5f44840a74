"""Greedy multi-path block verification: the best of K paths, and the probability of that path."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.result import VerifyResult


def verify_multipath(p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource) -> VerifyResult:
    """Block verification of the best of K independent drafts of one length. Lossless.

    Tokens are ordered by p/q, unclamped; the index breaks ties. Of the K drafts, the one of highest
    order is followed, context by context. It is then a draw from
    q_skew(t) = q(t) F(A+y+z, A+y) / F(A+x, A) with F(a, b) = (a^K - b^K) / (a - b), where
    - x is q of the path so far,
    - A is the q of all paths of lower order,
    - y = x (q of tokens of lower order than t),
    - z = x q(t).
    Block verification does the rest.

    Args:
        p: The target's distribution after each context, shape [N+1, V].
        q: The draft's distributions, by the tree's rows.
        tree: The drafted tree of N nodes.
        random_source: The source of every random choice.

    Source: 2602.16961.
    """
    K = len(tree.drawn[0])
    lower, path = 0.0, 1.0  # A, x
    context = 0
    contexts, tokens, skewed = [0], [], []
    while tree.drawn[context]:
        p_next, q_next = p[context].double(), q[tree.q_rows[context]].double()
        # 1. Rank the tokens by p/q. Those that q cannot draw come lowest.
        ratio = torch.where(q_next > 0.0, p_next / q_next, -1.0)
        order = ratio.sort(stable=True).indices  # ascending; equal ratios by rising index
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        # 2. q_skew: the distribution of the best of K draws after this context.
        below = torch.empty_like(q_next)
        below[order] = q_next[order].cumsum(0) - q_next[order]
        y, z = path * below, path * q_next
        row = q_next * _factored(lower + y + z, lower + y, K)
        skewed.append((row / _factored(row.new_tensor(lower + path), lower, K)).to(p.dtype))
        # 3. Follow the best draft. Repeated draws merge: q_skew accounts for all K.
        drafted = set(tree.drawn[context])
        node = max(drafted, key=lambda child: int(rank[tree.tokens[child]]))
        token = tree.tokens[node]
        lower, path = lower + float(y[token]), float(z[token])
        context = node + 1
        contexts.append(context)
        tokens.append(token)
    # 4. The best path is a single draft from q_skew, so block verification applies.
    at = torch.tensor(contexts, device=p.device)
    drafted_tokens = torch.tensor(tokens, dtype=torch.long, device=p.device)
    rows = torch.stack(skewed) if skewed else p[:0]
    return verify_block(p[at], rows, drafted_tokens, random_source)


def _factored(a: Tensor, b: Tensor | float, K: int) -> Tensor:
    """(a^K - b^K) / (a - b) as the sum of a^(K-1-i) b^i, which does not cancel; shape of a."""
    total = torch.ones_like(a)
    power = torch.ones_like(a)  # of b
    for _ in range(K - 1):
        power = power * b
        total = total * a + power
    return total

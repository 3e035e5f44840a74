"""Expected accepted tokens of a given draft, in closed form: what benchmarks average over text."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.block import acceptance_probabilities
from distillspec.speculation.verify.kseq import residual_weights, threshold
from distillspec.speculation.verify.recursive import after_rejection
from distillspec.speculation.verify.token import ratios


def expected_by_token(p: Tensor, q: Tensor, tokens: Tensor) -> float:
    """Drafted tokens that `verify_token` keeps of this block, in expectation.

    It is the sum over i of prod_{j <= i} min(1, p_j/q_j).

    Args:
        p: Shape [G+1, V].
        q: Shape [G, V].
        tokens: long [G].

    Returns:
        In [0, G].
    """
    return float(ratios(p, q, tokens).clamp(max=1.0).cumprod(0).sum())


def expected_by_block(p: Tensor, q: Tensor, tokens: Tensor) -> float:
    """Drafted tokens that `verify_block` keeps of this block, in expectation.

    It is the sum over i of 1 - prod_{j >= i} (1 - h_j), the probability that the trial of i or of a
    longer prefix succeeds.

    Args:
        p: Shape [G+1, V].
        q: Shape [G, V].
        tokens: long [G].

    Returns:
        In [0, G].
    """
    if tokens.shape[0] == 0:
        return 0.0
    h, _ = acceptance_probabilities(p, q, tokens)
    return float((1.0 - (1.0 - h).flip(0).cumprod(0)).sum())


class PositionDistribution(Protocol):
    """The distribution of a position rule's token, given the drafts."""

    def __call__(self, p: Tensor, q: Tensor, drafts: list[int], /) -> Tensor:
        """p [V], q [V], drafts in drawing order -> distribution [V]."""
        ...


def expected_down(p: Tensor, q: Tensor, tree: Tree, distribution: PositionDistribution) -> float:
    """Drafted tokens that `walk_down` keeps of this tree, in expectation.

    It is the sum over nodes of the probability that the walk reaches them.

    Args:
        p: By context, shape [N+1, V].
        q: By the tree's rows.
        tree: The drafted tree of N nodes.
        distribution: That of the rule's token at a context.

    Returns:
        In [0, depth of the tree].
    """
    reached = [1.0] + [0.0] * len(tree)  # by context
    for context, nodes in enumerate(tree.drawn):
        if not nodes or reached[context] == 0.0:
            continue
        drafts = [tree.tokens[node] for node in nodes]
        following = distribution(p[context], q[tree.q_rows[context]], drafts)
        for node in set(nodes):
            reached[node + 1] = reached[context] * float(following[tree.tokens[node]])
    return sum(reached[1:])


def kseq_distribution(p: Tensor, q: Tensor, drafts: list[int]) -> Tensor:
    """The distribution [V] of what `kseq_token` returns for these drafts."""
    K = len(drafts)
    at = torch.tensor(drafts, device=p.device)
    rho, beta = threshold(p, q, K)
    kept = (p[at] / (rho * q[at])).clamp(max=1.0)
    none = torch.cat([p.new_ones(1), (1.0 - kept).cumprod(0)])  # of the first 0 .. K
    left = residual_weights(p, q, K, rho, beta)
    return (none[-1] * left / left.sum()).index_add(0, at, kept * none[:-1])


def recursive_distribution(p: Tensor, q: Tensor, drafts: list[int], *, replacement: bool) -> Tensor:
    """The distribution [V] of what `recursive_token` returns for these drafts."""
    distribution, open_ = torch.zeros_like(p), 1.0
    for token in drafts:
        kept = min(1.0, float(p[token] / q[token]))
        distribution[token] += open_ * kept
        open_ *= 1.0 - kept
        p, q = after_rejection(p, q, token, replacement=replacement)
    return distribution + open_ * p

"""K-SEQ: a threshold on p/q accepts one of K independent drafts of a position (SpecTr)."""

from __future__ import annotations

from bisect import bisect_left

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.walk import walk_down

_HALVINGS = 60


def verify_kseq(p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource) -> VerifyResult:
    """K-SEQ at each context of a tree of independent drafts. Lossless.

    Args:
        p: The target's distribution after each context, shape [N+1, V].
        q: The draft's distributions, by the tree's rows.
        tree: The drafted tree of N nodes.
        random_source: The source of every random choice.
    """
    return walk_down(p, q, tree, random_source, kseq_token)


def kseq_token(p: Tensor, q: Tensor, drafts: list[int], random_source: RandomSource) -> int:
    """The next token, distributed as p, from K independent draws of q.

    The first draft whose trial succeeds is the token; a trial has probability min(1, p(x) / (rho
    q(x))). If none succeeds, the token is drawn from (p - min(q, p/rho) p_acc/beta)_+ with p_acc =
    1 - (1 - beta)^K. A draft that was drawn twice has two trials: merging them would bias the
    output.

    Args:
        p: The target's distribution, shape [V].
        q: The draft's distribution, shape [V].
        drafts: K tokens drawn from q, in drawing order, equal ones included.
        random_source: The source of every random choice.

    Source: Sun et al. 2310.15141.
    """
    K = len(drafts)
    at = torch.tensor(drafts, device=p.device)
    rho, beta = threshold(p, q, K)
    # All K trials at once: those after the first success decide nothing.
    trials = random_source.accept(p[at] / (rho * q[at])).tolist()
    if True in trials:
        return drafts[trials.index(True)]
    return int(random_source.draw(residual_weights(p, q, K, rho, beta)))


def residual_weights(p: Tensor, q: Tensor, K: int, rho: float, beta: float) -> Tensor:
    """Weights [V] of the draw after K drafts of which none was accepted.

    Args:
        p: The target's distribution, shape [V].
        q: The draft's distribution, shape [V].
        K: Drafts, at least 1.
        rho: The threshold.
        beta: The acceptance mass at rho.
    """
    # K is the limit of p_acc / beta as beta -> 0.
    trials = (1.0 - (1.0 - beta) ** K) / beta if beta > 0.0 else float(K)  # p_acc / beta
    left = (p - torch.minimum(q, p / rho) * trials).clamp_(min=0.0)
    # Rounding may leave no mass at all; then draw from p.
    return torch.where(left.any(), left, p)


def threshold(p: Tensor, q: Tensor, K: int) -> tuple[float, float]:
    """The smallest rho in [1, K] with 1 - (1-beta)^K <= rho beta, and beta at this rho.

    beta(rho) = sum_x min(q(x), p(x)/rho) falls in rho. Between two neighbours among the ratios p/q
    it is A + B/rho. A ratio of at most 1 or at least K is on one side for every rho, so only the
    few between them are sorted. Bisection finds the interval, then the rho in it. The upper end of
    the last interval is returned: every rho above the smallest keeps the distribution.

    Args:
        p: The target's distribution, shape [V].
        q: The draft's distribution, shape [V].
        K: Drafts, at least 1.
    """
    # One draft: rho is 1, and this is token verification.
    if K == 1:
        return 1.0, min(1.0, float(torch.minimum(p, q).sum(dtype=torch.float64)))
    on_p, on_q = torch.stack([p, q]).double().cpu().numpy()  # one wait, then no small kernels
    # 1. Sort the ratios between 1 and K. beta(rho) has another A and B after each of them.
    is_over = on_p > on_q
    between = is_over & (on_p < K * on_q)
    p_mid, q_mid = on_p[between], on_q[between]
    ratios = p_mid / q_mid
    order = ratios.argsort()
    # 2. Between two edges beta = A + B / rho. Compute both coefficients.
    q_over = float(on_q[is_over].sum())  # A just above 1
    p_under = float(on_p[~is_over].sum())  # B just above 1
    edges: list[float] = [*ratios[order].tolist(), float(K)]
    # A and B up to each edge from the one before
    A: list[float] = [q_over, *(q_over - q_mid[order].cumsum()).tolist()]
    B: list[float] = [p_under, *(p_under + p_mid[order].cumsum()).tolist()]

    def mass(piece: int, rho: float) -> float:
        # Running sums are rounded, so they may leave [0, 1].
        return min(1.0, max(A[piece], 0.0) + B[piece] / rho)

    def holds(rho: float, beta: float) -> bool:
        return 1.0 - (1.0 - beta) ** K <= rho * beta

    # 3. The smallest possible rho may suffice.
    if holds(1.0, mass(0, 1.0)):
        return 1.0, mass(0, 1.0)
    # 4. Find the interval of the smallest rho, then halve it.
    # At K it holds by Bernoulli's inequality, so rounding cannot decide the last edge.
    piece = bisect_left(
        range(len(edges) - 1), True, key=lambda i: holds(edges[i], mass(i, edges[i]))
    )
    low, high = edges[piece - 1] if piece else 1.0, edges[piece]
    for _ in range(_HALVINGS):
        rho = 0.5 * (low + high)
        if holds(rho, mass(piece, rho)):
            high = rho
        else:
            low = rho
    # Not `low`: only `high` is on the lossless side.
    return high, mass(piece, high)

"""K-SEQ: one of K independent drafts of a position is kept, by a threshold on p/q (SpecTr)."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.speculation.chance import Chance
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.verdict import Verdict
from distillspec.speculation.verify.walk import walk_down

_HALVINGS = 60


def verify_kseq(p: Tensor, q: Tensor, tree: Tree, chance: Chance) -> Verdict:
    """p [N+1, V] by context, q by the tree's rows, independent drafts -> verdict. Lossless."""
    return walk_down(p, q, tree, chance, kseq_token)


def kseq_token(p: Tensor, q: Tensor, drafts: list[int], chance: Chance) -> int:
    """p [V], q [V], K tokens drawn from q independently, equal ones included -> a token ~ p.

    The first draft that its coin accepts is it: with probability min(1, p(x) / (rho q(x))). If none
    is: a draw from (p - min(q, p/rho) p_acc/beta)_+, p_acc = 1 - (1 - beta)^K (Sun et al.
    2310.15141). A draft drawn twice has two trials: merging them would bias the output.
    """
    K = len(drafts)
    at = torch.tensor(drafts, device=p.device)
    rho, beta = threshold(p, q, K)
    coins = chance.accept(p[at] / (rho * q[at])).tolist()
    if True in coins:
        return drafts[coins.index(True)]
    return int(chance.draw(_left(p, q, K, rho, beta)))


def kseq_law(p: Tensor, q: Tensor, drafts: list[int]) -> Tensor:
    """The law [V] of what `kseq_token` returns for these drafts."""
    K = len(drafts)
    at = torch.tensor(drafts, device=p.device)
    rho, beta = threshold(p, q, K)
    kept = (p[at] / (rho * q[at])).clamp(max=1.0)
    none = torch.cat([p.new_ones(1), (1.0 - kept).cumprod(0)])  # of the first 0 .. K
    left = _left(p, q, K, rho, beta)
    return (none[-1] * left / left.sum()).index_add(0, at, kept * none[:-1])


def _left(p: Tensor, q: Tensor, K: int, rho: float, beta: float) -> Tensor:
    """Weights [V] of the draw after K drafts of which none was accepted."""
    trials = (1.0 - (1.0 - beta) ** K) / beta if beta > 0.0 else float(K)  # p_acc / beta
    left = (p - torch.minimum(q, p / rho) * trials).clamp_(min=0.0)
    return torch.where(left.any(), left, p)


def threshold(p: Tensor, q: Tensor, K: int) -> tuple[float, float]:
    """p [V], q [V] -> (rho, beta): the smallest rho in [1, K] with 1 - (1-beta)^K <= rho beta.

    beta(rho) = sum_x min(q(x), p(x)/rho), which falls in rho, is A + B/rho between two neighbours
    among the ratios p/q: one sort finds the interval, bisection the place in it. The upper end is
    returned, since every rho above the smallest keeps the law.
    """
    p, q = p.double(), q.double()
    ratios, order = torch.where(q > 0.0, p / q, torch.inf).sort()
    p_below = p[order].cumsum(0)  # of tokens with a ratio up to this one
    q_above = (q.sum() - q[order].cumsum(0)).clamp_(min=0.0)
    inside = ratios[(ratios > 1.0) & (ratios < K)]
    edges = torch.cat([ratios.new_tensor([1.0]), inside, ratios.new_tensor([float(K)])])
    last_below = torch.searchsorted(ratios, edges, right=True) - 1
    beyond = last_below < 0
    at = last_below.clamp(min=0)
    A = torch.where(beyond, q.sum(), q_above[at])
    B = torch.where(beyond, 0.0, p_below[at])
    beta = (A + B / edges).clamp_(max=1.0)
    holds = 1.0 - (1.0 - beta) ** K <= edges * beta
    holds[-1] = True  # Bernoulli's inequality, whatever rounding says
    first = int(holds.int().argmax())
    high = float(edges[first])
    if first:
        low, above, below = float(edges[first - 1]), float(A[first - 1]), float(B[first - 1])
        for _ in range(_HALVINGS):
            rho = 0.5 * (low + high)
            b = min(1.0, above + below / rho)
            if 1.0 - (1.0 - b) ** K <= rho * b:
                high = rho
            else:
                low = rho
        return high, min(1.0, above + below / high)
    return high, float(beta[0])

"""Optimal transport: what no rule can beat. The rule itself, by linear programming, for tiny V."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import coo_array
from torch import Tensor

from distillspec.speculation.chance import Chance
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.verdict import Verdict
from distillspec.speculation.verify.walk import walk_down


def verify_transport(p: Tensor, q: Tensor, tree: Tree, chance: Chance) -> Verdict:
    """p [N+1, V] by context, q by the tree's rows, independent drafts -> verdict. Lossless."""
    return walk_down(p, q, tree, chance, transport_token)


def transport_token(p: Tensor, q: Tensor, drafts: list[int], chance: Chance) -> int:
    """p [V], q [V], K independent draws from q -> a token ~ p, one of them as often as can be."""
    plan, _ = optimal_plan(p, q, len(drafts))
    row = plan[tuple(drafts)].clamp(min=0.0)
    return int(chance.draw(torch.where(row.any(), row, p)))


def optimal_plan(p: Tensor, q: Tensor, K: int) -> tuple[Tensor, float]:
    """p [V], q [V] -> (pi [V, ..., V, V], K + 1 axes; P(Y among X_1..X_K)), by HiGHS.

    pi(x_1..x_K, y) >= 0 with sum_y pi = prod q(x_i) and sum_x pi = p(y) maximises the mass on y in
    {x_1..x_K}: V^(K+1) variables (Sun et al. 2310.15141, section 4).
    """
    V = len(p)
    drafts = list(itertools.product(range(V), repeat=K))
    weights = [float(np.prod([float(q[x]) for x in xs])) for xs in drafts]
    gain = [-1.0 if y in xs else 0.0 for xs in drafts for y in range(V)]
    variable = np.arange(len(gain))
    rows = np.concatenate([variable // V, len(drafts) + variable % V])
    equal = coo_array(
        (np.ones(2 * len(gain)), (rows, np.tile(variable, 2))), shape=(len(drafts) + V, len(gain))
    )
    found = linprog(gain, A_eq=equal.tocsr(), b_eq=[*weights, *p.double().tolist()], method="highs")
    assert found.status == 0, found.message
    plan = torch.from_numpy(found.x).view(*([V] * (K + 1))).to(p.dtype)
    return plan, -float(found.fun)


def optimal_acceptance(p: Tensor, q: Tensor, K: int) -> float:
    """The value of that program in closed form, for any V: 1 + min over sets H of p(H) - q(H)^K.

    Where s is q of the best set, {p < K s^(K-1) q} is as good, since s^K lies above its tangent. So
    only sets of all tokens with p/q below some ratio need be tried.
    """
    on_p, on_q = p.double(), q.double()
    order = (on_p / on_q).nan_to_num(nan=torch.inf, posinf=torch.inf).argsort()
    lost = on_p[order].cumsum(0) - on_q[order].cumsum(0).clamp(max=1.0) ** K
    return 1.0 + min(0.0, float(lost.min()))

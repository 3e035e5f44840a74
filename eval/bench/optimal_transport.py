"""Optimal transport: the acceptance that no rule can beat, and the rule itself for tiny V."""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.walk import walk_down

Floats = NDArray[np.float64]


def verify_transport(p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource) -> VerifyResult:
    """p [N+1, V] by context, q by the tree's rows, independent drafts -> result. Lossless."""
    return walk_down(p, q, tree, random_source, transport_token)


def transport_token(p: Tensor, q: Tensor, drafts: list[int], random_source: RandomSource) -> int:
    """p [V], q [V], K independent draws from q -> a token ~ p, as often as possible one of them."""
    plan, _ = optimal_plan(p, q, len(drafts))
    row = plan[tuple(drafts)].to(p.device)
    return int(random_source.draw(torch.where(row.any(), row, p)))


def optimal_plan(p: Tensor, q: Tensor, K: int) -> tuple[Tensor, float]:
    """The joint distribution of drafts and output that accepts most often.

    pi(x_1..x_K, y) >= 0 with sum_y pi = prod q(x_i) and sum_x pi = p(y) maximises the mass on y in
    {x_1..x_K} (Sun et al. 2310.15141, section 4). That mass is the largest flow from the sets that
    K drafts can form to their members. There is always one, which a linear program with these
    equations may miss: rounded, they contradict each other.

    Args:
        p: Target's distribution, shape [V].
        q: Draft's distribution, shape [V].
        K: Independent drafts, at least 1. The plan has V^(K+1) entries.

    Returns:
        pi, float64 of shape [V, ..., V, V] with K + 1 axes; and P(Y among X_1..X_K).
    """
    on_p, on_q = _normalized(p), _normalized(q)
    V = len(on_p)
    drafts = list(itertools.product(range(V), repeat=K))
    weights = on_q[np.array(drafts)].prod(axis=1)
    sets = {members: i for i, members in enumerate(dict.fromkeys(map(frozenset, drafts)))}
    set_of = np.array([sets[frozenset(xs)] for xs in drafts])
    supply: Floats = np.zeros(len(sets))
    np.add.at(supply, set_of, weights)
    is_member = np.array([[y in members for y in range(V)] for members in sets])
    flow = _largest_flow(supply, on_p, is_member)
    share = np.divide(flow, supply[:, None], out=np.zeros_like(flow), where=supply[:, None] > 0.0)
    plan = weights[:, None] * share[set_of]
    # What no set could take is rejected mass: it goes to the tokens that still lack some.
    lacking = (on_p - flow.sum(axis=0)).clip(min=0.0)
    if lacking.any():
        rejected = weights * (1.0 - share.sum(axis=1)).clip(min=0.0)[set_of]
        plan += rejected[:, None] * (lacking / lacking.sum())
    return torch.from_numpy(plan).view(*([V] * (K + 1))), float(flow.sum())


def _normalized(probabilities: Tensor) -> Floats:
    values = probabilities.double().cpu()
    normalized: Floats = (values / values.sum()).numpy()
    return normalized


def _largest_flow(supply: Floats, demand: Floats, is_open: NDArray[np.bool_]) -> Floats:
    """The flow of the largest sum, by shortest augmenting paths.

    Each path empties a supply, a demand or a flow that it takes back, exactly, so the search ends.

    Args:
        supply: Shape [S].
        demand: Shape [V].
        is_open: Which edges exist, shape [S, V].

    Returns:
        Shape [S, V], at least 0.

    Source: Edmonds and Karp, Journal of the ACM 19 (1972).
    """
    flow = np.zeros(is_open.shape)
    left, lacking = supply.copy(), demand.copy()
    while path := _augmenting_path(left, lacking, flow, is_open):
        forward, back = path[0::2], path[1::2]
        amount = min(left[path[0][0]], lacking[path[-1][1]], *(flow[edge] for edge in back))
        for edge in forward:
            flow[edge] += amount
        for edge in back:
            flow[edge] -= amount
        left[path[0][0]] -= amount
        lacking[path[-1][1]] -= amount
    return flow


def _augmenting_path(
    left: Floats, lacking: Floats, flow: Floats, is_open: NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """Edges (set, token) from a set with supply left to a token that lacks some; [] if none.

    Edges with odd numbers are passed backwards: their flow goes elsewhere.
    """
    queue = deque((int(s), [(int(s), -1)]) for s in np.flatnonzero(left > 0.0))
    seen_sets, seen_tokens = {s for s, _ in queue}, set[int]()
    while queue:
        s, path = queue.popleft()
        for y in map(int, np.flatnonzero(is_open[s])):
            if y in seen_tokens:
                continue
            seen_tokens.add(y)
            longer = [*path[:-1], (s, y)]
            if lacking[y] > 0.0:
                return longer
            for row in map(int, np.flatnonzero(flow[:, y] > 0.0)):
                if row not in seen_sets:
                    seen_sets.add(row)
                    queue.append((row, [*longer, (row, y), (row, -1)]))
    return []


def optimal_acceptance(p: Tensor, q: Tensor, K: int) -> float:
    """The value of `optimal_plan` in closed form, for any V: 1 + min over sets H of p(H) - q(H)^K.

    Where s is q of the best set, {p < K s^(K-1) q} is as good, since s^K lies above its tangent. So
    only sets of all tokens with p/q below some ratio need be tried.

    Args:
        p: Target's distribution, shape [V].
        q: Draft's distribution, shape [V].
        K: Independent drafts, at least 1.

    Returns:
        P(Y among X_1..X_K) of the best rule.
    """
    on_p, on_q = p.double(), q.double()
    order = (on_p / on_q).nan_to_num(nan=torch.inf, posinf=torch.inf).argsort()
    lost = on_p[order].cumsum(0) - on_q[order].cumsum(0).clamp(max=1.0) ** K
    return 1.0 + min(0.0, float(lost.min()))

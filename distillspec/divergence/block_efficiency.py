"""Expected block efficiency as a loss: what an accepted token is worth depends on its neighbours.

A block of gamma drafted tokens that begins at position s keeps, if positions were independent,
sum_{l=1..gamma} prod_{i=s..s+l-1} alpha_i of them. The loss is minus that, over all beginnings s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class BlockWorth(NamedTuple):
    """What the blocks of some texts keep, and what that depends on."""

    kept: Tensor
    """[N], of the block that begins at each position: in [0, gamma], tokens"""
    weights: Tensor
    """[N] >= 0: how much more all blocks keep for each unit of alpha at this position"""


def block_worth(alpha: Tensor, lengths: Sequence[int], gamma: int) -> BlockWorth:
    """alpha [N] in [0, 1] of texts one after another, of `lengths` (their sum is N) -> their worth.

    weights = d (sum of kept) / d alpha. Of one block, alpha_j is worth prod_{i<j} alpha_i (what it
    takes to come there) times 1 + sum_{l>j} prod_{j<i<=l} alpha_i (the token itself and what it
    opens). Weights from the alphas before j alone would optimise the chance that the whole block
    passes. Blocks end with their text. The products along one path are an approximation: they take
    the draft's tokens for the text's own. With min(1, q / p) of the text's tokens in place of alpha
    there is none, on text of the target: the draft draws a block with chance prod q, and keeps it
    with prod min(1, p / q), which is prod p times prod min(1, q / p).
    """
    assert gamma >= 1 and sum(lengths) == alpha.shape[0]
    assert alpha.ndim == 1 and not alpha.requires_grad
    rows = _padded(alpha, lengths)
    T = rows.shape[1]
    width = min(gamma, T) if T else 1
    # chains[m][b, s] = prod of alpha over s..s+m-1; positions beyond a text's end have alpha 0.
    chains = [torch.ones_like(rows)]
    for m in range(1, width + 1):
        chains.append(chains[-1] * _shifted(rows, m - 1))
    kept = torch.stack(chains[1:]).sum(0)
    weights = torch.zeros_like(rows)
    for before in range(width):  # the block began this many positions before j
        opened = torch.ones_like(rows)
        for more in range(1, width - before):
            opened += _shifted(chains[more], 1)
        came = _shifted(chains[before], -before)
        weights += came * opened
    inside = _inside(rows, lengths)
    return BlockWorth(kept[inside], weights[inside])


def _padded(alpha: Tensor, lengths: Sequence[int]) -> Tensor:
    """[N] -> [B, T], 0 after each text's end."""
    rows = alpha.new_zeros(len(lengths), max(lengths, default=0))
    rows[_inside(rows, lengths)] = alpha
    return rows


def _inside(rows: Tensor, lengths: Sequence[int]) -> Tensor:
    position = torch.arange(rows.shape[1], device=rows.device)
    return position < torch.tensor(lengths, device=rows.device)[:, None]


def _shifted(rows: Tensor, by: int) -> Tensor:
    """[b, t] -> [b, t + by], 0 beyond either end."""
    found = torch.zeros_like(rows)
    T = rows.shape[1]
    if abs(by) < T:
        if by >= 0:
            found[:, : T - by] = rows[:, by:]
        else:
            found[:, -by:] = rows[:, :by]
    return found

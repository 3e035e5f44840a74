"""Expected block efficiency as a loss: the value of an accepted token depends on its neighbours.

A block of gamma drafted tokens begins at position s. If positions were independent, verification
would keep sum_{l=1..gamma} prod_{i=s..s+l-1} alpha_i of its tokens. The loss is minus that number,
summed over all starts s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class BlockWorth(NamedTuple):
    """Tokens that the blocks of some texts keep, and the gradient of that number.

    Attributes:
        kept: Expected kept tokens of the block that begins at each position, [N], in [0, gamma].
        weights: Gradient of the sum of `kept` in alpha at each position, [N], at least 0.
    """

    kept: Tensor
    weights: Tensor


def block_worth(alpha: Tensor, lengths: Sequence[int], gamma: int) -> BlockWorth:
    """Expected kept tokens of every block, and their gradient in alpha.

    The weight of alpha_j in a block is a product of two factors. The first is prod_{i<j} alpha_i,
    the probability that verification reaches position j. The second is
    1 + sum_{l>j} prod_{j<i<=l} alpha_i: token j itself, and the tokens that can follow it. Weights
    of the first factor alone would optimise the probability that the entire block is kept.

    Blocks end with their text. With acceptance rates the products are an approximation, because
    they treat the draft's tokens as the tokens of the text. With min(1, q / p) of the text's tokens
    in place of alpha they are exact on text of the target: the draft draws a block with probability
    prod q and keeps it with prod min(1, p / q), which is prod p times prod min(1, q / p).

    Args:
        alpha: Acceptance rates of all texts, concatenated, shape [N], in [0, 1], detached.
        lengths: Positions of each text; their sum is N.
        gamma: Drafted tokens per block, at least 1.

    Returns:
        Kept tokens and weights, both [N].
    """
    assert gamma >= 1 and sum(lengths) == alpha.shape[0]
    assert alpha.ndim == 1 and not alpha.requires_grad
    rows = _padded(alpha, lengths)
    T = rows.shape[1]
    # No block is longer than its text, so more than T factors are never needed.
    # An empty batch keeps one chain, because `stack` needs an input.
    width = min(gamma, T) if T else 1
    # 1. Products of up to `width` consecutive alphas; their sum is what a block keeps.
    # chains[m][b, s] = prod of alpha over s..s+m-1; positions beyond a text's end have alpha 0.
    chains = [torch.ones_like(rows)]
    for m in range(1, width + 1):
        chains.append(chains[-1] * _shifted(rows, m - 1))
    kept = torch.stack(chains[1:]).sum(0)
    # 2. The weight of position j sums over all blocks that contain j.
    weights = torch.zeros_like(rows)
    for before in range(width):  # the block began this many positions before j
        following = torch.ones_like(rows)
        for length in range(1, width - before):
            following += _shifted(chains[length], 1)
        # 0 at the first `before` positions of a text: no block begins before its text.
        reached = _shifted(chains[before], -before)
        weights += reached * following
    # 3. Back to concatenated texts, without the padding.
    inside = _inside(rows, lengths)
    return BlockWorth(kept[inside], weights[inside])


def _padded(alpha: Tensor, lengths: Sequence[int]) -> Tensor:
    """[N] -> [B, T], 0 after each text's end."""
    rows = alpha.new_zeros(len(lengths), max(lengths, default=0))
    rows[_inside(rows, lengths)] = alpha
    return rows


def _inside(rows: Tensor, lengths: Sequence[int]) -> Tensor:
    """Positions before the end of their text, bool [B, T]."""
    position = torch.arange(rows.shape[1], device=rows.device)
    return position < torch.tensor(lengths, device=rows.device)[:, None]


def _shifted(rows: Tensor, by: int) -> Tensor:
    """[b, t] -> [b, t + by], 0 beyond either end."""
    shifted = torch.zeros_like(rows)
    T = rows.shape[1]
    if abs(by) < T:
        if by >= 0:
            shifted[:, : T - by] = rows[:, by:]
        else:
            shifted[:, -by:] = rows[:, :by]
    return shifted

"""Token verification: the first rejected token is corrected, all before it stay."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.verify.result import VerifyResult


def verify_token(p: Tensor, q: Tensor, tokens: Tensor, chance: RandomSource) -> VerifyResult:
    """p [G+1, V], q [G, V], drafted tokens long [G] -> verdict. Lossless; waits for the host twice.

    Left to right, x_i stays with probability min(1, p_i(x_i)/q_i(x_i)); the first that does not is
    replaced by a draw from norm((p_i - q_i)_+); if all stay, a bonus is drawn from p_{G+1}
    (Leviathan et al. 2211.17192; Chen et al. 2302.01318).
    """
    gamma = tokens.shape[0]
    if gamma == 0:
        return VerifyResult([int(chance.draw(p[0]))])
    kept = _leading(chance.accept(ratios(p, q, tokens)).tolist())
    following = chance.draw(p[gamma] if kept == gamma else residual(p[kept], q[kept]))
    return VerifyResult(torch.cat([tokens[:kept], following.view(1)]).tolist())


class BatchVerifyResult(NamedTuple):
    """Of B rows: drafted tokens kept, long [B]; the token that follows them, long [B]; min(1, p/q)
    of each drafted token, [B, G].
    """

    kept: Tensor
    following: Tensor
    acceptance: Tensor


def verify_token_rows(
    p: Tensor, q: Tensor, tokens: Tensor, chance: RandomSource
) -> BatchVerifyResult:
    """`verify_token` of many rows at once: p [B, G+1, V], q [B, G, V], drafted long [B, G].

    Nothing waits for the host, so coins are thrown for all G tokens, also for those after a
    rejected one: they decide nothing.
    """
    rows, gamma = tokens.shape
    at = torch.arange(rows, device=tokens.device)
    drafted = tokens.unsqueeze(2)
    ratio = (p[:, :-1].gather(2, drafted) / q.gather(2, drafted)).squeeze(2)
    kept = chance.accept(ratio).long().cumprod(1).sum(1)
    excess = p[at, kept]
    rejected = (kept < gamma).unsqueeze(1)
    excess = torch.where(rejected, residual(excess, q[at, kept.clamp(max=gamma - 1)]), excess)
    return BatchVerifyResult(kept, chance.draw(excess), ratio.clamp(max=1.0))


def ratios(p: Tensor, q: Tensor, tokens: Tensor) -> Tensor:
    """p_i(x_i) / q_i(x_i) of a block: p [G+1, V], q [G, V], long [G] -> [G] >= 0."""
    drafted = tokens.unsqueeze(1)
    return (p[:-1].gather(1, drafted) / q.gather(1, drafted)).squeeze(1)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """Weights (p - q)_+: [..., V], [..., V] -> [..., V]; where nothing is left of a row, since
    p = q up to rounding, p.
    """
    excess = (p - q).clamp_(min=0.0)
    return torch.where(excess.any(-1, keepdim=True), excess, p)


def _leading(coins: list[bool]) -> int:
    """How many are true before the first that is not."""
    return coins.index(False) if False in coins else len(coins)

"""Token verification: the first rejected token is corrected, all before it are kept."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.verify.result import VerifyResult


def verify_token(p: Tensor, q: Tensor, tokens: Tensor, random_source: RandomSource) -> VerifyResult:
    """Token verification of one drafted sequence. Lossless.

    From left to right, x_i is kept with probability min(1, p_i(x_i)/q_i(x_i)). The first token that
    is not kept is replaced by a draw from norm((p_i - q_i)_+). If all are kept, a bonus is drawn
    from p_{G+1}. It waits for the device twice.

    Args:
        p: The target's distributions, shape [G+1, V].
        q: The draft's distributions, shape [G, V].
        tokens: Drafted tokens, long [G].
        random_source: The source of every random choice.

    Source: Leviathan et al. 2211.17192; Chen et al. 2302.01318.
    """
    gamma = tokens.shape[0]
    if gamma == 0:
        return VerifyResult([int(random_source.draw(p[0]))])
    kept = _leading(random_source.accept(ratios(p, q, tokens)).tolist())
    following = random_source.draw(p[gamma] if kept == gamma else residual(p[kept], q[kept]))
    # One transfer to the host for the kept tokens and the new one.
    return VerifyResult(torch.cat([tokens[:kept], following.view(1)]).tolist())


class BatchVerifyResult(NamedTuple):
    """Token verification of B rows.

    Attributes:
        kept: Drafted tokens that were kept, long [B].
        following: The token after them, long [B].
        acceptance: min(1, p/q) of each drafted token, shape [B, G].
    """

    kept: Tensor
    following: Tensor
    acceptance: Tensor


def verify_token_rows(
    p: Tensor, q: Tensor, tokens: Tensor, random_source: RandomSource
) -> BatchVerifyResult:
    """`verify_token` of many rows at once, without waiting for the device.

    All G tokens have their random trial, also those after a rejected token, where it decides
    nothing.

    Args:
        p: The target's distributions, shape [B, G+1, V].
        q: The draft's distributions, shape [B, G, V].
        tokens: Drafted tokens, long [B, G].
        random_source: The source of every random choice.
    """
    rows, gamma = tokens.shape
    at = torch.arange(rows, device=tokens.device)
    drafted = tokens.unsqueeze(2)
    ratio = (p[:, :-1].gather(2, drafted) / q.gather(2, drafted)).squeeze(2)
    # The running product is 1 up to the first rejection; its sum counts leading ones.
    kept = random_source.accept(ratio).long().cumprod(1).sum(1)
    # p at the first rejected position, or p of the bonus where all were kept.
    excess = p[at, kept]
    # A row that kept all has no q there. The clamp only makes its index valid.
    rejected = (kept < gamma).unsqueeze(1)
    excess = torch.where(rejected, residual(excess, q[at, kept.clamp(max=gamma - 1)]), excess)
    return BatchVerifyResult(kept, random_source.draw(excess), ratio.clamp(max=1.0))


def ratios(p: Tensor, q: Tensor, tokens: Tensor) -> Tensor:
    """p_i(x_i) / q_i(x_i) of a block: p [G+1, V], q [G, V], tokens long [G] -> [G] >= 0."""
    drafted = tokens.unsqueeze(1)
    return (p[:-1].gather(1, drafted) / q.gather(1, drafted)).squeeze(1)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """Weights (p - q)_+: [..., V], [..., V] -> [..., V].

    A row is p where nothing is left of it, since p = q up to rounding.
    """
    excess = (p - q).clamp_(min=0.0)
    return torch.where(excess.any(-1, keepdim=True), excess, p)


def _leading(accepted: list[bool]) -> int:
    """How many are true before the first that is false."""
    return accepted.index(False) if False in accepted else len(accepted)

"""Token verification: the first rejected token is corrected, all before it stay."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.speculation.chance import Chance
from distillspec.speculation.verify.verdict import Verdict


def verify_token(p: Tensor, q: Tensor, tokens: Tensor, chance: Chance) -> Verdict:
    """p [G+1, V], q [G, V], drafted tokens long [G] -> verdict. Lossless; one host synchronisation.

    Left to right, x_i stays with probability min(1, p_i(x_i)/q_i(x_i)); the first that does not is
    replaced by a draw from norm((p_i - q_i)_+); if all stay, a bonus is drawn from p_{G+1}
    (Leviathan et al. 2211.17192; Chen et al. 2302.01318).
    """
    gamma = tokens.shape[0]
    if gamma == 0:
        return Verdict([int(chance.draw(p[0]))])
    drafted = tokens.unsqueeze(1)
    ratio = (p[:gamma].gather(1, drafted) / q.gather(1, drafted)).squeeze(1)
    kept = chance.accept(ratio.clamp_(max=1.0)).cumprod(0).sum(0, keepdim=True)
    p_next = p.index_select(0, kept)[0]
    q_next = q.index_select(0, kept.clamp(max=gamma - 1))[0]
    q_next = q_next * (kept < gamma)  # a bonus has no draft to subtract
    next_token = chance.draw(residual(p_next, q_next))
    *drafts, accepted, following = torch.cat([tokens, kept, next_token.view(1)]).tolist()
    return Verdict([*drafts[:accepted], following])


def residual(p: Tensor, q: Tensor) -> Tensor:
    """norm((p - q)_+): [V], [V] -> [V]; where nothing is left, since p = q up to rounding, p."""
    excess = (p - q).clamp_(min=0.0)
    mass = excess.sum()
    return torch.where(mass > 0.0, excess / mass, p)

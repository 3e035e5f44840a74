"""Lenient acceptance: keeps more than the target's distribution allows. Lossy, only on request."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.verify.result import ChainRule, VerifyResult
from distillspec.speculation.verify.token import residual

FORMS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "exp": lambda p, eps: p**eps,
    "lin": lambda p, eps: p / eps,
    "sq": lambda p, eps: p / eps**2,
}


def lenient(form: str, eps: float) -> ChainRule:
    """Token verification that keeps x with probability min(1, f(p(x)) / q(x)).

    A token that is not kept is replaced from norm((p - q)_+), as in token verification. At
    temperature 0 lenience changes nothing.

    Args:
        form: f: "exp" is p^eps, "lin" is p / eps, "sq" is p / eps^2.
        eps: In (0, 1]; 1 is lossless.

    Source: Zhou et al. 2310.08461.
    """
    assert 0.0 < eps <= 1.0
    widened = FORMS[form]

    def verify(p: Tensor, q: Tensor, tokens: Tensor, random_source: RandomSource) -> VerifyResult:
        gamma = tokens.shape[0]
        if gamma == 0:
            return VerifyResult([int(random_source.draw(p[0]))])
        drafted = tokens.unsqueeze(1)
        p_of, q_of = p[:gamma].gather(1, drafted), q.gather(1, drafted)
        kept = random_source.accept((widened(p_of, eps) / q_of).squeeze(1)).tolist()
        accepted = kept.index(False) if False in kept else gamma
        whole = accepted == gamma
        following = random_source.draw(p[gamma] if whole else residual(p[accepted], q[accepted]))
        return VerifyResult(torch.cat([tokens[:accepted], following.view(1)]).tolist())

    return verify

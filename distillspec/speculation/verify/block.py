"""Block verification: the length that is kept is decided for the block as a whole."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.token import ratios, residual


def verify_block(p: Tensor, q: Tensor, tokens: Tensor, random_source: RandomSource) -> VerifyResult:
    """Block verification of one drafted sequence. Lossless.

    With w_0 = 1 and w_i = min(1, w_{i-1} p_i(x_i)/q_i(x_i)), each prefix i has an independent trial
    of probability h_i = S_i / (S_i + 1 - w_i), S_i = sum_v (w_i p_{i+1} - q_{i+1})_+, and h_G =
    w_G. The longest prefix whose trial succeeds is kept. Then a token is drawn from norm((w_i
    p_{i+1} - q_{i+1})_+), or the bonus from p_{G+1}.

    It never keeps fewer tokens than token verification in expectation. It waits for the device
    three times.

    Args:
        p: The target's distributions, shape [G+1, V].
        q: The draft's distributions, shape [G, V].
        tokens: Drafted tokens, long [G].
        random_source: The source of every random choice.

    Source: Sun et al. 2403.10444.
    """
    gamma = tokens.shape[0]
    if gamma == 0:
        return VerifyResult([int(random_source.draw(p[0]))])
    h, w = acceptance_probabilities(p, q, tokens)
    # No early exit: a longer prefix may succeed after a shorter one failed.
    trials = random_source.accept(h).tolist()
    kept = max((i + 1 for i, succeeds in enumerate(trials) if succeeds), default=0)
    if kept == gamma:
        following = random_source.draw(p[gamma])
    else:
        # The residual uses the w of the prefix that was kept; w_0 = 1.
        reached = w[kept - 1] if kept else 1.0
        following = random_source.draw(_scaled_residual(reached, p[kept], q[kept]))
    return VerifyResult(torch.cat([tokens[:kept], following.view(1)]).tolist())


def acceptance_probabilities(p: Tensor, q: Tensor, tokens: Tensor) -> tuple[Tensor, list[float]]:
    """h_1 .. h_G as a tensor [G], and w_1 .. w_G, of a block of G >= 1 tokens.

    Args:
        p: The target's distributions, shape [G+1, V].
        q: The draft's distributions, shape [G, V].
        tokens: Drafted tokens, long [G].
    """
    # Each w needs the one before, so the recursion runs on the host.
    w = _weights(ratios(p, q, tokens).tolist())
    # Rows 1 .. G-1: what follows each prefix shorter than the block.
    on_path = p.new_tensor(w[:-1])[:, None]
    excess = (on_path * p[1:-1] - q[1:]).clamp_(min=0.0).sum(-1)
    surplus = excess + (1.0 - on_path[:, 0])
    h = torch.where(surplus > 0.0, excess / surplus, 1.0)  # 1 where S = 0 and w = 1: p = q
    return torch.cat([h, p.new_tensor(w[-1:])]), w


def _weights(token_ratios: list[float]) -> list[float]:
    """w_1 .. w_G from the ratios p/q of the tokens, clamped at each step."""
    w, weights = 1.0, []
    for ratio in token_ratios:
        w = min(1.0, w * ratio)
        weights.append(w)
    return weights


def _scaled_residual(w: float, p: Tensor, q: Tensor) -> Tensor:
    """Weights (w p - q)_+ [V], or p where rounding leaves nothing."""
    return residual(p, q) if w == 1.0 else torch.where((w * p > q).any(), (w * p - q).clamp(0), p)

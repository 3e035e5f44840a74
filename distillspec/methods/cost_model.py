"""The speed-up that speculative decoding must give, from acceptance and isolated step times.

This is pure arithmetic. All times are relative to a one-token target step.

Source: Leviathan et al. 2211.17192, section 3, with measured times of a round in place of
gamma c + 1.
"""

from __future__ import annotations

from typing import NamedTuple

from distillspec.speculation.round_times import RoundTimes


class Best(NamedTuple):
    """The block size with the highest predicted speed-up.

    Attributes:
        gamma: The block size.
        speedup: Its predicted speed-up.
    """

    gamma: int
    speedup: float


def tau_iid(alpha: float, gamma: int) -> float:
    """Tokens per target forward if every token is accepted with probability alpha, independently.

    (1 - alpha^(gamma+1)) / (1 - alpha), in [1, gamma + 1].
    """
    # The sum, since the closed form is 0 / 0 at alpha = 1.
    return sum(alpha**i for i in range(gamma + 1))


def speedup_iid(alpha: float, gamma: int, times: RoundTimes) -> float:
    """Predicted speed-up of chain drafts of fixed length at an i.i.d. acceptance rate."""
    return tau_iid(alpha, gamma) / times.at(gamma, alpha**gamma)


def best_gamma(alpha: float, times: RoundTimes) -> Best:
    """The best of the timed block sizes; of equals the smaller one."""
    candidates = [Best(gamma, speedup_iid(alpha, gamma, times)) for gamma in sorted(times.blocks)]
    # `max` returns the first of equals, which is the smaller gamma.
    return max(candidates, key=lambda best: best.speedup)


def perfect_draft_cap(times: RoundTimes) -> Best:
    """Speed-up of a draft that is never rejected, at its best gamma: a limit for all training."""
    return best_gamma(1.0, times)


def break_even_alpha(times: RoundTimes) -> float | None:
    """The alpha in [0, 1] at which the best gamma gives speed-up 1; None if alpha 1 gives less."""
    if perfect_draft_cap(times).speedup < 1.0:
        return None
    low, high = 0.0, 1.0
    # True only if a measured round takes at most one step of the target.
    if best_gamma(low, times).speedup >= 1.0:
        return 0.0
    # The best speed-up rises with alpha. 60 halvings exceed double precision.
    for _ in range(60):
        middle = (low + high) / 2
        if best_gamma(middle, times).speedup < 1.0:
            low = middle
        else:
            high = middle
    return high

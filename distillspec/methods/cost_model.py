"""The speed-up that speculative decoding must give, from acceptance and isolated step times.

This is pure arithmetic. All times are relative to a one-token target step: `draft_to_target_time`
(c) is one draft step, and `verify_times[gamma]` (v) is one target forward over gamma + 1 tokens
with its verification.

Source: Leviathan et al. 2211.17192, section 3, with v in place of 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple


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


def predicted_speedup(
    tau: float, draft_steps: float, draft_to_target_time: float, verify_time: float
) -> float:
    """tau / (draft_steps * c + v): tokens of a round over its time, in one-token target steps."""
    return tau / (draft_steps * draft_to_target_time + verify_time)


def verify_time_between(verify_times: Mapping[int, float], drafted: float) -> float:
    """v for a mean number of drafted tokens, linear between the numbers whose v is known.

    v(0) is 1. Beyond the largest known number it is that number's v. It is nan for nan.
    """
    if math.isnan(drafted):
        return math.nan
    known = {0: 1.0, **verify_times}
    above = min((size for size in known if size >= drafted), default=max(known))
    below = max(size for size in known if size <= drafted)
    # `drafted` is a known number, or is beyond the largest one.
    if above <= below:
        return known[above]
    share = (drafted - below) / (above - below)
    return (1.0 - share) * known[below] + share * known[above]


def speedup_iid(alpha: float, gamma: int, draft_to_target_time: float, verify_time: float) -> float:
    """Predicted speed-up of chain drafts of fixed length at an i.i.d. acceptance rate."""
    return predicted_speedup(tau_iid(alpha, gamma), gamma, draft_to_target_time, verify_time)


def best_gamma(
    alpha: float, draft_to_target_time: float, verify_times: Mapping[int, float]
) -> Best:
    """The best of the block sizes with a known verification time; of equals the smaller one."""
    assert verify_times, "at least one block size is measured"
    candidates = [
        Best(gamma, speedup_iid(alpha, gamma, draft_to_target_time, verify_times[gamma]))
        for gamma in sorted(verify_times)
    ]
    # `max` returns the first of equals, which is the smaller gamma.
    return max(candidates, key=lambda best: best.speedup)


def perfect_draft_cap(draft_to_target_time: float, verify_times: Mapping[int, float]) -> Best:
    """Speed-up of a draft that is never rejected, at its best gamma: a limit for all training."""
    return best_gamma(1.0, draft_to_target_time, verify_times)


def break_even_alpha(
    draft_to_target_time: float, verify_times: Mapping[int, float]
) -> float | None:
    """The alpha in [0, 1] at which the best gamma gives speed-up 1; None if alpha 1 gives less."""
    if perfect_draft_cap(draft_to_target_time, verify_times).speedup < 1.0:
        return None
    low, high = 0.0, 1.0
    # True only if the measured c * gamma + v is at most 1 for some gamma.
    if best_gamma(low, draft_to_target_time, verify_times).speedup >= 1.0:
        return 0.0
    # The best speed-up rises with alpha. 60 halvings exceed double precision.
    for _ in range(60):
        middle = (low + high) / 2
        if best_gamma(middle, draft_to_target_time, verify_times).speedup < 1.0:
            low = middle
        else:
            high = middle
    return high

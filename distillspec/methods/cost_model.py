"""What speculative decoding must gain, from acceptance and isolated step times. Pure arithmetic.

All times are over the time of a one-token target step: `draft_to_target_time` (c) of one draft
step, `verify_times[gamma]` (v) of one target forward over gamma + 1 tokens, verification included.
Source: Leviathan et al. 2211.17192, section 3, with v in place of 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple


class Best(NamedTuple):
    """The block size with the highest predicted speed-up, and that speed-up."""

    gamma: int
    speedup: float


def tau_iid(alpha: float, gamma: int) -> float:
    """Tokens per target forward if every token is accepted with probability alpha, independently.

    (1 - alpha^(gamma+1)) / (1 - alpha), in [1, gamma + 1].
    """
    return sum(alpha**i for i in range(gamma + 1))


def predicted_speedup(
    tau: float, draft_steps: float, draft_to_target_time: float, verify_time: float
) -> float:
    """tau / (draft_steps * c + v): tokens of a round over its time, in one-token target steps."""
    return tau / (draft_steps * draft_to_target_time + verify_time)


def verify_time_between(verify_times: Mapping[int, float], drafted: float) -> float:
    """v for this many drafted tokens, linear between the numbers of tokens whose v is known.

    v(0) is 1. Beyond the largest known number its v. nan for nan.
    """
    if math.isnan(drafted):
        return math.nan
    known = {0: 1.0, **verify_times}
    above = min((size for size in known if size >= drafted), default=max(known))
    below = max(size for size in known if size <= drafted)
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
    """The best of the block sizes whose verification time is known; the smaller one of equals."""
    assert verify_times, "at least one block size is measured"
    candidates = [
        Best(gamma, speedup_iid(alpha, gamma, draft_to_target_time, verify_times[gamma]))
        for gamma in sorted(verify_times)
    ]
    return max(candidates, key=lambda best: best.speedup)


def perfect_draft_cap(draft_to_target_time: float, verify_times: Mapping[int, float]) -> Best:
    """Speed-up of a draft that is never rejected, at its best gamma: no training can pass it."""
    return best_gamma(1.0, draft_to_target_time, verify_times)


def break_even_alpha(
    draft_to_target_time: float, verify_times: Mapping[int, float]
) -> float | None:
    """The alpha in [0, 1] at which the best gamma gives speed-up 1; None: not even at alpha 1."""
    if perfect_draft_cap(draft_to_target_time, verify_times).speedup < 1.0:
        return None
    low, high = 0.0, 1.0
    if best_gamma(low, draft_to_target_time, verify_times).speedup >= 1.0:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        if best_gamma(middle, draft_to_target_time, verify_times).speedup < 1.0:
            low = middle
        else:
            high = middle
    return high

"""Block efficiency expected on a given text of the target's: decoding without the dice.

Speculative decoding emits text with the target's distribution, whatever the draft. So a text drawn
from the target alone is a text that decoding could have emitted; given the text, each place was a
kept draft token with a known probability, independently of the others, and what remains random is
where rounds began. Both counts below are the exact expectations over that (a renewal process). The
same texts serve all drafts, so that a difference between two of them holds nothing but the drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ExpectedCounts(NamedTuple):
    """Of whole rounds, as in `speculation.records.Counts`: their tokens, and their number."""

    emitted: float
    verifications: float


def expected_counts(chances: Sequence[float], gamma: int) -> ExpectedCounts:
    """Chances [N] that the text's token i was a kept draft token, if a draft stood there.

    Rounds with fewer than gamma + 1 tokens of the text left are left out, as when decoding.
    A round at s emits 1 + L tokens, L >= k with probability chances[s] * ... * chances[s + k - 1],
    L <= gamma.
    """
    begins = [0.0] * (len(chances) + 1)  # probability that a round begins at this place
    begins[0] = 1.0
    emitted = verifications = 0.0
    for start in range(len(chances) - gamma):
        kept, tokens = 1.0, 1.0
        for place in range(start, start + gamma):
            begins[place + 1] += begins[start] * kept * (1.0 - chances[place])
            kept *= chances[place]
            tokens += kept
        begins[start + gamma + 1] += begins[start] * kept
        emitted += begins[start] * tokens
        verifications += begins[start]
    return ExpectedCounts(emitted, verifications)

"""Expected block efficiency on a given text of the target, without sampling.

Speculative decoding emits text with the target's distribution for every draft. So a text drawn from
the target alone could have been emitted by decoding. Given the text, each position was an accepted
draft token with a known probability, independently of the others. Only the positions where rounds
began remain random, and the counts below are exact expectations over them (a renewal process). All
drafts share the same texts, so two drafts differ only by the drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ExpectedCounts(NamedTuple):
    """Expected counts of complete rounds, as in `speculation.records.Counts`."""

    emitted: float
    verifications: float


def expected_counts(keep_probabilities: Sequence[float], gamma: int) -> ExpectedCounts:
    """Expected tokens and rounds of a text of N tokens.

    Rounds with fewer than gamma + 1 tokens of the text left are not counted, as in decoding.
    A round at s emits 1 + L tokens, L <= gamma. With c for `keep_probabilities`, L >= k has the
    probability c[s] * ... * c[s + k - 1].

    Args:
        keep_probabilities: Probability that token i was accepted, if it was drafted; N of them.
        gamma: Drafted tokens per block.
    """
    # Probability that a round begins at each position.
    begins = [0.0] * (len(keep_probabilities) + 1)
    begins[0] = 1.0
    emitted = verifications = 0.0
    # A complete round needs gamma + 1 tokens: its drafts, and the correction or bonus.
    for start in range(len(keep_probabilities) - gamma):
        # reach: probability that all drafts before `position` were accepted.
        reach, tokens = 1.0, 1.0
        for position in range(start, start + gamma):
            # Rejected at `position`: that token is the correction, and a round begins after it.
            begins[position + 1] += begins[start] * reach * (1.0 - keep_probabilities[position])
            reach *= keep_probabilities[position]
            tokens += reach
        # All drafts accepted: the next token is the bonus.
        begins[start + gamma + 1] += begins[start] * reach
        emitted += begins[start] * tokens
        verifications += begins[start]
    return ExpectedCounts(emitted, verifications)

"""Drafting without a model: the tokens that followed an earlier occurrence of the text's end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distillspec.speculation.draft.chain import Chain
from distillspec.speculation.draft.proposal import DraftContext


@dataclass(frozen=True)
class LookupDraft:
    """Prompt lookup (n-gram drafting): free, and useful wherever a text repeats itself.

    The draft is certain: q is one-hot, so every rule for chains verifies it. Token verification
    keeps x with probability p(x), and else draws from p without x.

    Attributes:
        longest: n, the most tokens at the text's end that are searched for.

    Source: Saxena, github.com/apoorvumang/prompt-lookup-decoding, 2023.
    """

    longest: int

    def slots(self, gamma: int) -> int:
        return gamma

    def propose(self, context: DraftContext, gamma: int) -> Chain:
        """Draft up to gamma tokens; none where the text does not repeat itself."""
        assert gamma >= 0
        return Chain.certain(context, continuation(context.text, self.longest, gamma))


def continuation(text: Sequence[int], longest: int, gamma: int) -> list[int]:
    """At most gamma tokens that followed the longest end of `text` which occurs in it earlier.

    Ends of 1 to `longest` tokens count. Of several occurrences it takes the latest of those that
    most tokens follow, up to gamma. In a loop, the latest of all would give no more than one turn.
    """
    end = len(text) - 1
    # Without a match, nothing follows `end` and the draft is empty.
    best, match = (0, 0), end
    for position in range(end):
        if text[position] != text[end]:
            continue
        length = 1
        # Extend the match to the left.
        while (
            length < longest
            and length <= position
            and text[position - length] == text[end - length]
        ):
            length += 1
        # A longer match wins, then more following tokens; `>=` takes the latest of equals.
        rank = (length, min(gamma, end - position))
        if rank >= best:
            best, match = rank, position
    return list(text[match + 1 : match + 1 + gamma])

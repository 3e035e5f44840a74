"""Drafting without a model: what followed the last tokens where they stood before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distillspec.speculation.draft.chain import Chain
from distillspec.speculation.draft.proposal import DraftContext


@dataclass(frozen=True)
class LookupDraft:
    """Prompt lookup, or n-gram drafting: free, and right wherever a text repeats itself.

    longest: n, tokens at the text's end that are looked for, at most. The draft is certain, q is
    one-hot, so every rule for chains verifies it: token verification keeps x with probability p(x)
    and else draws from p without x. (Saxena, github.com/apoorvumang/prompt-lookup-decoding, 2023.)
    """

    longest: int

    def slots(self, gamma: int) -> int:
        return gamma

    def propose(self, basis: DraftContext, gamma: int) -> Chain:
        """Up to gamma tokens; none where the text does not repeat itself. No forward of a model."""
        assert gamma >= 0
        return Chain.certain(basis, continuation(basis.text, self.longest, gamma))


def continuation(text: Sequence[int], longest: int, gamma: int) -> list[int]:
    """At most gamma tokens that followed the longest end of `text` which occurs in it earlier.

    Ends of 1 to `longest` tokens count. Of several occurrences, the latest of those that most
    tokens follow, gamma at most: in a loop the latest of all would give no more than one turn.
    """
    end = len(text) - 1
    best, found = (0, 0), end
    for place in range(end):
        if text[place] != text[end]:
            continue
        length = 1
        while length < longest and length <= place and text[place - length] == text[end - length]:
            length += 1
        rank = (length, min(gamma, end - place))
        if rank >= best:
            best, found = rank, place
    return list(text[found + 1 : found + 1 + gamma])

"""Rounds of an arm that did not decode, on the text that another one did.

Decoding has the distribution of the target whoever drafts, so what one arm emitted any other could
have. Given a token that was emitted, token verification had kept a drafted one with probability
min(1, q/p), independently of the others (see `speculation.trajectory`). So where an arm's rounds
would have begun on the text is known without dice: their expected number is exactly that of
decoding with that arm alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from distillspec.speculation.choose.chooser import RoundOutcome
from distillspec.speculation.draft.lookup import continuation


class ImaginedRounds(Protocol):
    def begin(self) -> None:
        """A round begins at the next token: of a text, or of a part that follows unseen ones."""
        ...

    def extend(self, outcome: RoundOutcome) -> float:
        """Expected rounds that begin at the outcome's fresh tokens, one at most at each.

        Their sum over a text is the expected number of target forwards to emit it.
        """
        ...


class ChainRounds:
    """Of chains of gamma tokens by `model`, under token verification."""

    def __init__(self, model: str | None, gamma: int) -> None:
        self._model, self._gamma = model, gamma
        self.begin()

    def begin(self) -> None:
        # The distribution of how many tokens of the present round there are: a round with gamma of
        # them has kept its whole draft and awaits the bonus; with 0 it is about to begin.
        self._distribution = [1.0] + [0.0] * self._gamma

    def extend(self, outcome: RoundOutcome) -> float:
        begun = 0.0
        for chance in outcome.chances[self._model]:
            begun += self._distribution[0]
            drafting = self._distribution[:-1]
            ended = self._distribution[-1] + (1.0 - chance) * sum(drafting)
            self._distribution = [ended, *(chance * share for share in drafting)]
        return begun


class LookupRounds:
    """Of prompt lookup: nothing is random in it once the text is known."""

    def __init__(self, longest: int, gamma: int) -> None:
        self._longest, self._gamma = longest, gamma
        self.begin()

    def begin(self) -> None:
        self._left: Sequence[int] | None = None  # of the present round's draft

    def extend(self, outcome: RoundOutcome) -> float:
        begun = 0.0
        text = outcome.text
        for place in range(len(text) - outcome.fresh, len(text)):
            if self._left is None:
                begun += 1.0
                self._left = continuation(text[:place], self._longest, self._gamma)
            is_kept = bool(self._left) and self._left[0] == text[place]
            self._left = self._left[1:] if is_kept else None
        return begun

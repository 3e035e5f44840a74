"""Expected rounds of an arm on a text that another arm decoded.

Decoding has the distribution of the target for every draft, so what one arm emitted any other arm
could have emitted. Given an emitted token, token verification had kept it as a drafted token with
probability min(1, q/p), independently of the others (see `speculation.trajectory`). So the expected
number of rounds that begin at each token is exactly that of decoding with this arm alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from distillspec.speculation.choose.chooser import RoundOutcome
from distillspec.speculation.draft.lookup import continuation


class ImaginedRounds(Protocol):
    """Follows a text and counts the rounds that an arm would have begun on it."""

    def begin(self) -> None:
        """A round begins at the next token, since the text is new or tokens were missed."""
        ...

    def extend(self, outcome: RoundOutcome) -> float:
        """Expected rounds that begin at the outcome's fresh tokens, at most one per token.

        Their sum over a text is the expected number of target forwards to emit it.
        """
        ...


class ChainRounds:
    """Rounds of chains of gamma tokens by `model`, under token verification."""

    def __init__(self, model: str | None, gamma: int) -> None:
        self._model, self._gamma = model, gamma
        self.begin()

    def begin(self) -> None:
        # Probability that the present round has emitted n tokens, n = 0 .. gamma. At gamma it has
        # kept its entire draft and its bonus comes next; at 0 it is about to begin.
        self._distribution = [1.0] + [0.0] * self._gamma

    def extend(self, outcome: RoundOutcome) -> float:
        expected = 0.0
        for kept in outcome.keep_probabilities[self._model]:
            # 1. A round begins at this token if the one before has ended.
            expected += self._distribution[0]
            drafting = self._distribution[:-1]
            # 2. This token ends the round if it is the bonus or is not kept.
            ended = self._distribution[-1] + (1.0 - kept) * sum(drafting)
            self._distribution = [ended, *(kept * share for share in drafting)]
        return expected


class LookupRounds:
    """Rounds of prompt lookup, which are certain once the text is known."""

    def __init__(self, longest: int, gamma: int) -> None:
        self._longest, self._gamma = longest, gamma
        self.begin()

    def begin(self) -> None:
        self._draft: Sequence[int] | None = None  # what is left of the present round's draft

    def extend(self, outcome: RoundOutcome) -> float:
        expected = 0.0
        text = outcome.text
        for position in range(len(text) - outcome.fresh, len(text)):
            if self._draft is None:
                expected += 1.0
                self._draft = continuation(text[:position], self._longest, self._gamma)
            is_kept = bool(self._draft) and self._draft[0] == text[position]
            # A draft kept to its end is empty, not None: its bonus comes next.
            self._draft = self._draft[1:] if is_kept else None
        return expected

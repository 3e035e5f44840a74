"""What the cost model expects of each arm, from the acceptance that the rounds of all arms show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.speculation.choose.chooser import RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.draft.calibrated import CalibratedAdaEDL
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.nothing import NoDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.round_times import RoundTimes
from distillspec.speculation.verify.token import verify_token

_FIRST_ALPHA = 0.7
_ALPHA_WEIGHT = 8.0  # drafted tokens that an acceptance counts as before it is seen


@dataclass(frozen=True)
class Prior:
    """What a chooser knows of its arms before it has seen them.

    Attributes:
        rounds: Rounds that the cost model's expectation counts as, above 0.
        times: Of each arm's rounds, in one-token target steps; None where they are not timed.
        target_seconds: A one-token target step.
    """

    rounds: float
    times: Sequence[RoundTimes | None]
    target_seconds: float


class Expected(NamedTuple):
    """Of a round of an arm, in expectation."""

    tokens: float
    seconds: float


class Forecast:
    """Expects tokens and seconds of a round of each arm.

    Under token verification, a drafted token that is reached is kept or not whatever comes after
    it. So each round of any arm with fixed length shows how often the draft's 1st, 2nd, ... token
    is kept, and with that what every other gamma of that draft emits.

    - A chain of fixed length: 1 + sum of the probabilities that its first tokens are all kept.
    - AdaEDL with measured costs: what the best of its lengths emits.
    - Nothing drafted: 1 token.

    Nothing is expected of any other arm. Under block verification, how often a token is kept hangs
    on gamma, so its rounds show nothing about other lengths.
    """

    def __init__(self, arms: Sequence[Configuration], prior: Prior, keep: float = 1.0) -> None:
        """Make a forecast that has seen no round.

        Args:
            arms: The arms of the chooser.
            prior: Their times.
            keep: Weight of a round after each further one, in (0, 1].
        """
        self._arms, self._keep = arms, keep
        self._prices = [
            _prices(arm, times, prior.target_seconds)
            for arm, times in zip(arms, prior.times, strict=True)
        ]
        self._latest: list[Expected | None] | None = None  # until something is learnt
        longest = max(arm.gamma for arm in arms)
        self._kept = {arm.model: [0.0] * longest for arm in arms}
        self._reached = {arm.model: [0.0] * longest for arm in arms}

    def shares(self, arm: Configuration) -> bool:
        """Whether the rounds of other arms show what this one emits: it drafts a fixed length."""
        return _is_chain(arm) and isinstance(arm.stop, FixedLength)

    def learn(self, arm: Configuration, outcome: RoundOutcome) -> None:
        """Learn from a round of an arm."""
        self._latest = None
        if self._keep < 1.0:
            for counts in (*self._kept.values(), *self._reached.values()):
                counts[:] = [self._keep * count for count in counts]
        if not _is_chain(arm):
            return
        accepted = outcome.tokens - 1
        shown = min(outcome.drafted, accepted + 1)
        # A stop rule goes on where acceptance is high, so only its first token is like others'.
        if not isinstance(arm.stop, FixedLength):
            shown = min(shown, 1)
        for position in range(shown):
            self._reached[arm.model][position] += 1.0
            self._kept[arm.model][position] += position < accepted

    def of_arms(self) -> list[Expected | None]:
        """What is expected of a round of each arm; None where nothing is known."""
        if self._latest is None:
            survival = {model: self._survival(model) for model in self._kept}
            self._latest = [
                None if prices is None else prices.expected(survival[arm.model])
                for arm, prices in zip(self._arms, self._prices, strict=True)
            ]
        return self._latest

    def filled(self) -> list[Expected]:
        """As `of_arms`, with the mean of the others for an unknown arm; only if `knows_some`."""
        known = self.of_arms()
        some = [expected for expected in known if expected is not None]
        assert some, "nothing is expected of any arm"
        tokens = sum(expected.tokens for expected in some)
        seconds = sum(expected.seconds for expected in some)
        mean = Expected(tokens / len(some), seconds / len(some))
        return [expected or mean for expected in known]

    def knows_some(self) -> bool:
        """Whether it expects something of at least one arm."""
        return any(expected is not None for expected in self.of_arms())

    def state(self) -> dict[str, list[list[float]]]:
        """The counts of each draft, as plain data."""
        return {str(model): [self._kept[model], self._reached[model]] for model in self._kept}

    def restore(self, state: Any, *, where: str) -> None:
        """Continue from what `state` returned.

        Raises:
            DistillSpecError: The state is of other drafts or lengths.
        """
        try:
            read = {
                model: [[float(number) for number in counts] for counts in state[str(model)]]
                for model in self._kept
            }
            longest = len(next(iter(self._kept.values())))
            fits = all(
                [len(part) for part in counts] == [longest, longest]
                and all(math.isfinite(number) for part in counts for number in part)
                for counts in read.values()
            )
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise DistillSpecError(
                "the statistics have no acceptance of these drafts",
                where=where,
                fix="delete the file to start without statistics, or give the file of this suite",
            )
        for model, (kept, reached) in read.items():
            self._kept[model], self._reached[model] = kept, reached
        self._latest = None

    def _survival(self, model: str | None) -> list[float]:
        """Probability that the first n drafted tokens are all kept, n = 1, 2, ..."""
        kept, reached = self._kept[model], self._reached[model]
        alpha = (sum(kept) + _ALPHA_WEIGHT * _FIRST_ALPHA) / (sum(reached) + _ALPHA_WEIGHT)
        survival, share = [], 1.0
        for k, n in zip(kept, reached, strict=True):
            share *= (k + _ALPHA_WEIGHT * alpha) / (n + _ALPHA_WEIGHT)
            survival.append(share)
        return survival


class _Prices(NamedTuple):
    """Seconds of an arm's rounds by the length of its block, with nothing unread.

    Attributes:
        by_length: The lengths that the arm may choose among.
        unread: More seconds after a block that was kept to its end.
    """

    by_length: Mapping[int, float]
    unread: float

    def expected(self, survival: Sequence[float]) -> Expected:
        """What the fastest of the lengths emits, and its seconds.

        Args:
            survival: Probability that the first n drafted tokens are all kept, n = 1, 2, ...
        """
        emitted = list(accumulate(survival, initial=1.0))
        lengths = [
            Expected(emitted[n], seconds + (survival[n - 1] * self.unread if n else 0.0))
            for n, seconds in self.by_length.items()
        ]
        return max(lengths, key=lambda expected: expected.tokens / expected.seconds)


def _prices(arm: Configuration, times: RoundTimes | None, second: float) -> _Prices | None:
    """Prices of an arm; None where nothing is expected of it. second: of a one-token step."""
    if times is None:
        return None
    if isinstance(arm.draft, NoDraft):
        return _Prices({0: second * times.at(arm.gamma)}, 0.0)
    lengths: Sequence[int] = ()
    if _is_chain(arm) and isinstance(arm.stop, FixedLength):
        lengths = (arm.gamma,)
    elif _is_chain(arm) and isinstance(arm.stop, CalibratedAdaEDL):
        lengths = range(1, arm.gamma + 1)
    prices = {n: second * times.between(n, n) for n in lengths}
    return _Prices(prices, second * times.unread) if prices else None


def _is_chain(arm: Configuration) -> bool:
    """Whether each drafted token that is reached is kept or not, whatever comes after it."""
    return isinstance(arm.draft, ChainDraft) and arm.verify is verify_token

"""UCBSpec: the arm with the highest upper confidence bound (2505.15141)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from distillspec.speculation.choose.chooser import Reward, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.forecast import Forecast, Prior
from distillspec.speculation.choose.statistics import arms_of, read_arms


class UCB:
    """Each arm once, then the arm with the largest mean + scale (range/2) sqrt(bonus(n, t)).

    bonus = (1 + n)/n^2 (1 + 2 log(A t^2 sqrt(1 + n) / delta)) for A arms, n rounds of this arm and
    t rounds of all. The raw bonus (scale 1, as published) is about the entire range within one
    reply. Use `discount` or `window` for traffic that changes.

    With a prior, each arm starts with that many rounds of what the cost model expects of it. The
    expectation follows the acceptance that all arms show, so no arm has to be tried first.
    """

    watches = ()

    def __init__(
        self,
        arms: Sequence[Configuration],
        reward: Reward,
        *,
        delta: float = 0.1,
        scale: float = 1.0,
        discount: float = 1.0,
        window: int | None = None,
        prior: Prior | None = None,
    ) -> None:
        """Make a chooser that knows nothing yet.

        Args:
            arms: The configurations to choose from, at least 1.
            reward: What is maximised.
            delta: The paper's confidence parameter, in (0, 1); it names no value.
            scale: Factor of the bonus; 1 is the published value.
            discount: Weight that a round loses with every further round, in (0, 1]; 1 is no
                discount.
            window: Count only this many last rounds, at least the number of arms; None counts all.
            prior: What the cost model knows of the arms; None is the published chooser.
        """
        assert arms and 0.0 < delta < 1.0 and 0.0 < discount <= 1.0
        assert window is None or (window >= len(arms) and discount == 1.0)
        self._arms = list(arms)
        self._reward, self._delta, self._scale = reward, delta, scale
        self._discount, self._window = discount, window
        self._seen = [_Seen(0.0, 0.0, 0.0)] * len(arms)
        self._last: deque[tuple[int, int, float]] = deque()
        self._chosen = 0
        # The forecast forgets as fast as the chooser does.
        keep = discount if window is None else 1.0 - 1.0 / window
        self._pseudo = prior.rounds if prior else 0.0
        self._forecast = Forecast(arms, prior, keep) if prior else None

    def begin(self) -> None:
        """Nothing to do: what the chooser knows holds for every text."""

    def choose(self) -> Configuration:
        seen = self._seen
        if self._forecast is not None:
            n = self._pseudo
            # An arm of which nothing is expected has no pseudo-rounds, so it is tried.
            seen = [
                rounds
                if expected is None
                else rounds.plus(n, n * expected.tokens, n * expected.seconds)
                for rounds, expected in zip(seen, self._forecast.of_arms(), strict=True)
            ]
        t = max(1.0, sum(rounds.rounds for rounds in seen))
        self._chosen = max(range(len(seen)), key=lambda arm: self._index(seen[arm], t))
        return self._arms[self._chosen]

    def learn(self, outcome: RoundOutcome) -> None:
        tokens, seconds = outcome.tokens, outcome.seconds
        if self._forecast is not None:
            self._forecast.learn(self._arms[self._chosen], outcome)
        if self._discount < 1.0:
            # The discount applies to all arms, also to those that were not chosen.
            self._seen = [_Seen(*(self._discount * value for value in seen)) for seen in self._seen]
        self._seen[self._chosen] = self._seen[self._chosen].plus(1, tokens, seconds)
        if self._window is None:
            return
        self._last.append((self._chosen, tokens, seconds))
        if len(self._last) > self._window:
            arm, old_tokens, old_seconds = self._last.popleft()
            self._seen[arm] = self._seen[arm].plus(-1, -old_tokens, -old_seconds)

    def _index(self, seen: _Seen, t: float) -> float:
        """Upper confidence bound of an arm; infinite for one without rounds. t: of all arms."""
        n = seen.rounds
        if n == 0.0:  # no round yet, or none within the window
            return math.inf
        inside = len(self._arms) * t * t * math.sqrt(1.0 + n) / self._delta
        bonus = math.sqrt((1.0 + n) / n**2 * (1.0 + 2.0 * math.log(inside)))
        return self._reward.mean(*seen) + self._scale * self._reward.range / 2.0 * bonus

    def state(self) -> dict[str, Any]:
        # Single rounds are not stored, so a window starts empty.
        is_empty = self._window is not None
        values = [[0.0] * 3 if is_empty else list(seen) for seen in self._seen]
        state: dict[str, Any] = {"kind": "ucb", "arms": arms_of(self._arms, values)}
        if self._forecast is not None:
            state["forecast"] = self._forecast.state()
        return state

    def restore(self, state: Any, *, where: str) -> None:
        seen = [_Seen(*values) for values in read_arms(state, "ucb", self._arms, 3, where)]
        # An older state has no forecast; its arms' rounds count all the same.
        if self._forecast is not None and "forecast" in state:
            self._forecast.restore(state["forecast"], where=where)
        self._seen = seen


class _Seen(NamedTuple):
    """Sums over the rounds of an arm."""

    rounds: float
    tokens: float
    seconds: float

    def plus(self, rounds: float, tokens: float, seconds: float) -> _Seen:
        return _Seen(self.rounds + rounds, self.tokens + tokens, self.seconds + seconds)

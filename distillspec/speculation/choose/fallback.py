"""A safety net: an adaptive chooser that is slower than a fixed configuration falls back to it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from enum import Enum
from typing import Any

from distillspec.speculation.choose.chooser import Chooser, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration

log = logging.getLogger(__name__)


class _Phase(Enum):
    BASELINE = "measures the baseline"
    WATCHED = "decodes by the adaptive chooser, and measures it"
    FALLEN_BACK = "decodes by the baseline until the next trial"


class FallbackChooser:
    """Decodes by `way` as long as that is not slower than `baseline` by more than `margin`.

    1. The baseline decodes `window` rounds, which gives its tokens per second.
    2. Then `way` decodes. If `window` of its rounds emit fewer than 1 - margin of the baseline's
       tokens per second, the baseline takes over for `pause` rounds. These give the baseline's new
       speed, and `way` is tried again.
    3. A `way` that keeps up hands over to the baseline for `window` rounds after every `pause`, so
       that the comparison is of traffic of the same time.
    """

    def __init__(
        self,
        way: Chooser,
        baseline: Configuration,
        *,
        window: int = 64,
        margin: float = 0.05,
        pause: int = 512,
    ) -> None:
        """Make a chooser that first measures the baseline.

        Args:
            way: The adaptive chooser.
            baseline: The configuration to fall back to.
            window: Rounds per comparison, at least 1.
            margin: Share of the baseline's speed that `way` may lose, in [0, 1).
            pause: Rounds of the baseline before `way` is tried again, at least `window`.
        """
        assert window >= 1 and pause >= window and 0.0 <= margin < 1.0
        self._way, self._baseline = way, baseline
        self._window, self._margin, self._pause = window, margin, pause
        self._phase = _Phase.BASELINE
        self._speed = 0.0  # of the baseline, tokens per second
        self._rounds = self._since = 0
        self._tokens = self._seconds = 0.0

    @property
    def has_fallen_back(self) -> bool:
        return self._phase is _Phase.FALLEN_BACK

    @property
    def watches(self) -> Collection[str | None]:
        return self._way.watches if self._phase is _Phase.WATCHED else ()

    def begin(self) -> None:
        self._way.begin()

    def choose(self) -> Configuration:
        return self._way.choose() if self._phase is _Phase.WATCHED else self._baseline

    def learn(self, outcome: RoundOutcome) -> None:
        if self._phase is _Phase.WATCHED:
            self._way.learn(outcome)
        self._rounds += 1
        self._tokens += outcome.tokens
        self._seconds += outcome.seconds
        if self._phase is _Phase.WATCHED:
            self._compare()
        # In the other two phases the baseline decodes. Enough rounds give its speed.
        elif self._rounds >= (self._window if self._phase is _Phase.BASELINE else self._pause):
            self._speed = self._tokens / self._seconds
            self._since = 0
            self._enter(_Phase.WATCHED)

    def state(self) -> dict[str, Any]:
        """The state of `way` alone; each process measures the baseline for itself."""
        return self._way.state()

    def restore(self, state: Any, *, where: str) -> None:
        self._way.restore(state, where=where)

    def _compare(self) -> None:
        # `_since` counts rounds since the baseline last decoded, `_rounds` those of this window.
        self._since += 1
        if self._rounds < self._window:
            return
        speed = self._tokens / self._seconds
        if speed < (1.0 - self._margin) * self._speed:
            log.warning(
                "%.0f tokens/s over %d rounds, below %.0f of %s@%d, which takes the next %d rounds",
                speed,
                self._rounds,
                self._speed,
                self._baseline.name,
                self._baseline.gamma,
                self._pause,
            )
            self._enter(_Phase.FALLEN_BACK)
        elif self._since >= self._pause:
            self._enter(_Phase.BASELINE)
        else:
            self._enter(_Phase.WATCHED)

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._rounds = 0
        self._tokens = self._seconds = 0.0

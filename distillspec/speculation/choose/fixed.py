"""The chooser of one fixed configuration."""

from __future__ import annotations

from typing import Any

from distillspec.speculation.choose.chooser import RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.statistics import arms_of, read_arms


class Fixed:
    """The same configuration every round."""

    watches = ()

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def begin(self) -> None:
        """Nothing to do: the choice is the same for every text."""

    def choose(self) -> Configuration:
        return self._configuration

    def learn(self, outcome: RoundOutcome) -> None:
        """Nothing to learn: the stop rule has its own feedback."""

    def state(self) -> dict[str, Any]:
        return {"kind": "fixed", "arms": arms_of([self._configuration], [[]])}

    def restore(self, state: Any, *, where: str) -> None:
        read_arms(state, "fixed", [self._configuration], 0, where)

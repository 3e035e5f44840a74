"""The chooser that has made up its mind."""

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
        """Nothing is of one text."""

    def choose(self) -> Configuration:
        return self._configuration

    def learn(self, outcome: RoundOutcome) -> None:
        """There is nothing to learn, but for the stop rule, which learns by itself."""

    def state(self) -> dict[str, Any]:
        return {"kind": "fixed", "arms": arms_of([self._configuration], [[]])}

    def restore(self, state: Any, *, where: str) -> None:
        read_arms(state, "fixed", [self._configuration], 0, where)

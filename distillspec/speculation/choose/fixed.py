"""The chooser that has made up its mind."""

from __future__ import annotations

from typing import Any

from distillspec.speculation.choose.statistics import arms_of, read_arms
from distillspec.speculation.configuration import Configuration


class Fixed:
    """The same configuration every round."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def choose(self) -> Configuration:
        return self._configuration

    def learn(self, tokens: int, seconds: float) -> None:
        """There is nothing to learn, but for the stop rule, which learns by itself."""

    def state(self) -> dict[str, Any]:
        return {"kind": "fixed", "arms": arms_of([self._configuration], [[]])}

    def restore(self, state: Any, *, where: str) -> None:
        read_arms(state, "fixed", [self._configuration], 0, where)

"""A chooser for each prompt alone: every text starts with a new chooser."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from distillspec.speculation.choose.chooser import Chooser, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.statistics import read_arms

_KIND = "per prompt"


class PerPrompt:
    """Makes a new chooser for every text. Their arms know nothing yet; no state is stored."""

    def __init__(self, make: Callable[[], Chooser]) -> None:
        self._make = make
        self._way = make()

    @property
    def watches(self) -> Collection[str | None]:
        return self._way.watches

    def begin(self) -> None:
        self._way = self._make()
        self._way.begin()

    def choose(self) -> Configuration:
        return self._way.choose()

    def learn(self, outcome: RoundOutcome) -> None:
        self._way.learn(outcome)

    def state(self) -> dict[str, Any]:
        return {"kind": _KIND, "arms": []}

    def restore(self, state: Any, *, where: str) -> None:
        read_arms(state, _KIND, [], 0, where)

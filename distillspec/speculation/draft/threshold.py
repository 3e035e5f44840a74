"""A stop threshold that follows the acceptance of its drafts: for AdaEDL and Draft&Verify."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from distillspec.speculation.draft.stop import StopRule

_STEP = 0.01
_KEEP_RATE = 0.5
_KEEP_THRESHOLD = 0.9


class FollowingThreshold(StopRule, ABC):
    """Moves its threshold after every round that drafted; a rule gives the direction.

    For a round that kept the share m of its draft:
        rate <- 0.5 rate + 0.5 m
        wanted = the threshold, or 0.01 above or below it
        threshold <- 0.9 threshold + 0.1 wanted

    So the threshold moves by at most 0.001 per round, and its start matters. It stays within
    [lowest, 1], since a rule beyond these limits stops always or never.
    """

    def __init__(self, threshold: float, rate: float, lowest: float) -> None:
        self.threshold, self.rate = threshold, rate
        self._lowest = lowest

    @abstractmethod
    def direction(self, length: int, gamma: int) -> int:
        """1 if a higher threshold is wanted after this draft, -1 if a lower one, else 0."""

    def state(self) -> list[float]:
        return [self.threshold, self.rate]

    def restore(self, state: Sequence[float]) -> None:
        self.threshold, self.rate = state

    def learn(self, length: int, accepted: int, gamma: int) -> None:
        # A round without a draft shows nothing about acceptance.
        if length == 0:
            return
        self.rate = _KEEP_RATE * self.rate + (1.0 - _KEEP_RATE) * accepted / length
        wanted = self.threshold + self.direction(length, gamma) * _STEP
        moved = _KEEP_THRESHOLD * self.threshold + (1.0 - _KEEP_THRESHOLD) * wanted
        self.threshold = min(1.0, max(self._lowest, moved))

"""A stop rule's threshold that follows how much of its drafts is kept: AdaEDL's, Draft&Verify's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from distillspec.speculation.draft.stop import StopRule

_STEP = 0.01
_KEEP_RATE = 0.5
_KEEP_THRESHOLD = 0.9


class FollowingThreshold(StopRule, ABC):
    """Learns after every round that drafted; what stops by it, and which way it goes, a rule says.

    rate <- 0.5 rate + 0.5 m for a round that kept the share m; the threshold wanted is 0.01 higher,
    the same or 0.01 lower; threshold <- 0.9 threshold + 0.1 wanted. So it moves by 0.001 a round at
    most, and where it starts matters. It stays within [lowest, 1]: beyond, it would stop always or
    never.
    """

    def __init__(self, threshold: float, rate: float, lowest: float) -> None:
        self.threshold, self.rate = threshold, rate
        self._lowest = lowest

    @abstractmethod
    def direction(self, length: int, gamma: int) -> int:
        """1: a higher threshold is wanted, -1: a lower one, after a draft of `length` tokens."""

    def state(self) -> list[float]:
        return [self.threshold, self.rate]

    def restore(self, state: Sequence[float]) -> None:
        self.threshold, self.rate = state

    def learn(self, length: int, accepted: int, gamma: int) -> None:
        if length == 0:
            return
        self.rate = _KEEP_RATE * self.rate + (1.0 - _KEEP_RATE) * accepted / length
        wanted = self.threshold + self.direction(length, gamma) * _STEP
        moved = _KEEP_THRESHOLD * self.threshold + (1.0 - _KEEP_THRESHOLD) * wanted
        self.threshold = min(1.0, max(self._lowest, moved))

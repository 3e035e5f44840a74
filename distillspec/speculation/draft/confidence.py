"""Stop after a token the draft was unsure of: a fixed threshold, or one that follows acceptance."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.sampling import SamplingPolicy

_STEP = 0.01
_KEEP_RATE = 0.5
_KEEP_THRESHOLD = 0.9


class Confidence(StopRule):
    """Stop after a token whose untempered probability is below the threshold (transformers: 0.4).

    The token is submitted all the same.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
        return float(policy.untempered(logits)[token]) < self.threshold


class DraftVerify(Confidence):
    """The same with a threshold that follows how much is accepted (Draft&Verify, 2309.08168).

    rate <- 0.5 rate + 0.5 m for a round that kept the share m; the threshold wanted is 0.01 higher
    if rate <= wanted_rate, else 0.01 lower; threshold <- 0.9 threshold + 0.1 wanted.
    """

    def __init__(self, threshold: float, wanted_rate: float) -> None:
        super().__init__(threshold)
        self.rate = self._wanted_rate = wanted_rate

    def state(self) -> list[float]:
        return [self.threshold, self.rate]

    def restore(self, state: Sequence[float]) -> None:
        self.threshold, self.rate = state

    def learn(self, length: int, accepted: int, gamma: int) -> None:
        if length == 0:
            return
        self.rate = _KEEP_RATE * self.rate + (1.0 - _KEEP_RATE) * accepted / length
        wanted = self.threshold + (_STEP if self.rate <= self._wanted_rate else -_STEP)
        moved = _KEEP_THRESHOLD * self.threshold + (1.0 - _KEEP_THRESHOLD) * wanted
        self.threshold = min(1.0, max(0.0, moved))

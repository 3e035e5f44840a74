"""Stop after a token the draft was unsure of: a fixed threshold, or one that follows acceptance."""

from __future__ import annotations

from torch import Tensor

from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.draft.threshold import FollowingThreshold
from distillspec.speculation.sampling import SamplingPolicy


class Confidence(StopRule):
    """Stop after a token whose untempered probability is below the threshold (transformers: 0.4).

    The token is submitted all the same.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
        return _confidence(logits, token, policy) < self._threshold


class DraftVerify(FollowingThreshold):
    """The same with a threshold that follows how much is accepted (Draft&Verify, 2309.08168).

    A higher one is wanted where rate <= wanted_rate, else a lower one.
    """

    def __init__(self, threshold: float, wanted_rate: float) -> None:
        super().__init__(threshold, wanted_rate, lowest=0.0)
        self._wanted_rate = wanted_rate

    def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
        return _confidence(logits, token, policy) < self.threshold

    def direction(self, length: int, gamma: int) -> int:
        return 1 if self.rate <= self._wanted_rate else -1


def _confidence(logits: Tensor, token: Tensor, policy: SamplingPolicy) -> float:
    """The untempered probability of token (long []) after logits [V]; one look at the device."""
    return float(policy.untempered(logits)[token])

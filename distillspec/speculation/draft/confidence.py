"""Stop after a token that the draft was unsure of, by a fixed or a following threshold."""

from __future__ import annotations

from torch import Tensor

from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.draft.threshold import FollowingThreshold
from distillspec.speculation.sampling import SamplingPolicy


class Confidence(StopRule):
    """Stop after a token whose untempered probability is below the threshold.

    The token is submitted to verification all the same. transformers uses 0.4.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
        return _confidence(logits, token, policy) < self._threshold


class DraftVerify(FollowingThreshold):
    """`Confidence` with a threshold that follows acceptance (Draft&Verify, 2309.08168).

    It wants a higher threshold where rate <= wanted_rate, else a lower one.
    """

    def __init__(self, threshold: float, wanted_rate: float) -> None:
        super().__init__(threshold, wanted_rate, lowest=0.0)
        self._wanted_rate = wanted_rate

    def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
        return _confidence(logits, token, policy) < self.threshold

    def direction(self, length: int, gamma: int) -> int:
        return 1 if self.rate <= self._wanted_rate else -1


def _confidence(logits: Tensor, token: Tensor, policy: SamplingPolicy) -> float:
    """Untempered probability of token (long []) after logits [V]; waits for the device."""
    return float(policy.untempered(logits)[token])

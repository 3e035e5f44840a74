"""Stop where the draft's own law is spread out: AdaEDL, SVIP."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.sampling import SamplingPolicy

_ENTROPY_WEIGHT = 0.2
_STEP = 0.01
_WANTED_RATE = 0.9
_KEEP_RATE = 0.5
_KEEP_THRESHOLD = 0.9


def entropy_nats(logits: Tensor, policy: SamplingPolicy) -> float:
    """Entropy of the untempered law after logits [V], in nats; one look at the device.

    0 log 0 is 0 here, as the logarithm is kept finite; half the time of `torch.special.entr`.
    """
    q = policy.untempered(logits)
    return -float(torch.dot(q, q.clamp(min=torch.finfo(q.dtype).tiny).log()))


def guessed_acceptance(logits: Tensor, policy: SamplingPolicy) -> float:
    """AdaEDL's guess at the acceptance of the token to come, 1 - sqrt(0.2 H), at most 1."""
    return 1.0 - math.sqrt(_ENTROPY_WEIGHT * max(entropy_nats(logits, policy), 0.0))


class AdaEDL(StopRule):
    """Stop where 1 - sqrt(0.2 H) < threshold, a guess at the next token's acceptance (2410.18351).

    A heuristic, no bound. After a round that kept the share m of its draft:
    rate <- 0.5 rate + 0.5 m; the threshold wanted is 0.01 higher if rate < 0.9, the same if the
    draft ran to its end, 0.01 lower otherwise; threshold <- 0.9 threshold + 0.1 wanted. So it moves
    by 0.001 a round at most, and where it starts matters.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.rate = _WANTED_RATE

    def stops(self, logits: Tensor, policy: SamplingPolicy) -> bool:
        return guessed_acceptance(logits, policy) < self.threshold

    def state(self) -> list[float]:
        return [self.threshold, self.rate]

    def restore(self, state: Sequence[float]) -> None:
        self.threshold, self.rate = state

    def learn(self, length: int, accepted: int, gamma: int) -> None:
        if length == 0:
            return
        self.rate = _KEEP_RATE * self.rate + (1.0 - _KEEP_RATE) * accepted / length
        wanted = self.threshold
        if self.rate < _WANTED_RATE:
            wanted += _STEP
        elif length < gamma:
            wanted -= _STEP
        moved = _KEEP_THRESHOLD * self.threshold + (1.0 - _KEEP_THRESHOLD) * wanted
        self.threshold = min(1.0, max(-1.0, moved))  # beyond, it would stop always or never


class SVIP(StopRule):
    """Stop where sqrt(weight H) > threshold (published: 0.15 and 0.3)."""

    def __init__(self, weight: float, threshold: float) -> None:
        self._weight, self._threshold = weight, threshold

    def stops(self, logits: Tensor, policy: SamplingPolicy) -> bool:
        return math.sqrt(self._weight * max(entropy_nats(logits, policy), 0.0)) > self._threshold

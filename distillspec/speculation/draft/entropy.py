"""Stop where the draft's own distribution is spread out: AdaEDL and SVIP."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.draft.threshold import FollowingThreshold
from distillspec.speculation.sampling import SamplingPolicy

_ENTROPY_WEIGHT = 0.2
_FIRST_RATE = 0.9


def entropy_nats(logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> float:
    """Entropy of the untempered distribution after logits [V]; waits for the device.

    It takes half the time of `torch.special.entr`, since the draw needs the distribution anyway and
    only a dot product comes on top. The logarithm is kept finite, so that 0 log 0 is 0.

    Args:
        logits: The draft's logits, shape [V].
        policy: Gives the temperature.
        entropy: The same entropy in nats, if it is known already.

    Returns:
        Nats, at least 0.
    """
    if entropy is None:
        q = policy.untempered(logits)
        entropy = -torch.dot(q, q.clamp(min=torch.finfo(q.dtype).tiny).log())
    # Rounding may give a tiny negative value, which has no square root.
    return max(float(entropy), 0.0)


def guessed_acceptance(
    logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None
) -> float:
    """AdaEDL's guess at the acceptance of the next token, 1 - sqrt(0.2 H), at most 1."""
    return 1.0 - math.sqrt(_ENTROPY_WEIGHT * entropy_nats(logits, policy, entropy))


class AdaEDL(FollowingThreshold):
    """Stop where 1 - sqrt(0.2 H) < threshold, a guess at the next token's acceptance (2410.18351).

    The guess is a heuristic, not a bound. AdaEDL wants a higher threshold where rate < wanted_rate
    (published: 0.9). Else it wants the same one if the draft ran to its end, and a lower one if
    not. Where no draft is accepted that often, the threshold climbs until hardly any token is
    drafted.
    """

    reads_entropy = True

    def __init__(self, threshold: float, wanted_rate: float) -> None:
        super().__init__(threshold, _FIRST_RATE, lowest=-1.0)
        self._wanted_rate = wanted_rate

    def stops(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> bool:
        return guessed_acceptance(logits, policy, entropy) < self.threshold

    def direction(self, length: int, gamma: int) -> int:
        if self.rate < self._wanted_rate:
            return 1
        return -1 if length < gamma else 0


class SVIP(StopRule):
    """Stop where sqrt(weight H) > threshold (published: 0.15 and 0.3)."""

    reads_entropy = True

    def __init__(self, weight: float, threshold: float) -> None:
        self._weight, self._threshold = weight, threshold

    def stops(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> bool:
        return math.sqrt(self._weight * entropy_nats(logits, policy, entropy)) > self._threshold

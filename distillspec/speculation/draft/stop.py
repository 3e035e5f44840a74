"""When to stop drafting before gamma tokens are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from distillspec.speculation.sampling import SamplingPolicy


class StopRule:
    """Never early, unless a rule says otherwise.

    A rule may look at the context and at a token that was drawn, but a token once drawn is always
    submitted to verification, else the output is biased.
    """

    reads_entropy: ClassVar[bool] = False  # then who has it already passes it to `stops`

    def stops(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> bool:
        """Whether to stop before a further token is drawn from the draft's logits [V].

        entropy: of the untempered distribution after them, in nats, where it is known.
        """
        return False

    def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
        """Whether to stop after this token (long []), drawn from the draft's logits [V]."""
        return False

    def state(self) -> list[float]:
        """What it has learnt, to be kept across prompts or processes; `restore` takes it."""
        return []

    def restore(self, state: Sequence[float]) -> None:
        """Go on from what `state` gave."""

    def learn(self, length: int, accepted: int, gamma: int) -> None:
        """A round is over: of a draft of `length` tokens, gamma at most, `accepted` were kept."""


class FixedLength(StopRule):
    """gamma tokens a round, and no look at the device."""

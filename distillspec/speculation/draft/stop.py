"""When to stop drafting before gamma tokens are made."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from distillspec.speculation.sampling import SamplingPolicy


class StopRule(Protocol):
    def stops(self, logits: Tensor, policy: SamplingPolicy) -> bool:
        """Whether to stop before a further token is drawn from the draft's logits [V].

        It may look at the context, never at the outcome of a draw: a token once drawn is always
        submitted to verification, else the output is biased.
        """
        ...


class FixedLength:
    """Never early: gamma tokens a round, and no look at the device."""

    def stops(self, logits: Tensor, policy: SamplingPolicy) -> bool:
        return False

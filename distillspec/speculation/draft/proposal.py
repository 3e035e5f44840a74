"""What a draft hands to verification, and the protocol of whatever makes it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from distillspec.speculation.chance import Chance
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy


class Proposal(NamedTuple):
    """tokens: long [G]; q: [G, V], the distribution each token was drawn from; steps: forwards."""

    tokens: Tensor
    q: Tensor
    steps: int


class DraftRule(Protocol):
    def propose(
        self,
        runner: Runner,
        pending: Tensor,
        gamma: int,
        policy: SamplingPolicy,
        chance: Chance,
        stop: StopRule,
    ) -> Proposal:
        """At most gamma tokens after `pending`, the long [n] committed tokens not yet fed."""
        ...

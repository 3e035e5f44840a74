"""The watch on one round that is audited: it overhears the draft's distributions and stops the
time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.records import RoundAudit
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy


class Watch:
    """Of one round, from the moment that drafting begins.

    `policy` goes to the draft in place of the plain one.

    At temperature 0 the distributions that verification sees are one-hot, so entropies need the
    logits; the policy sees the logits of every token that a draft draws, whatever its kind. They
    are read when the round is over and its time is taken, which costs the round a copy of them.
    """

    def __init__(self, policy: SamplingPolicy) -> None:
        self.policy = _Overhearing(policy.temperature, policy.top_k, policy.nucleus, policy)
        self._drafting = self._drafted = self._verified = time.perf_counter()

    def drafted(self, draft: Runner | None) -> None:
        """Drafting is over; waits for the draft's device, if there is one."""
        if draft is not None:
            draft.synchronize()
        self._drafted = time.perf_counter()

    def verified(self, target: Runner) -> None:
        """Verification is over; waits for the target's device."""
        target.synchronize()
        self._verified = time.perf_counter()

    def audit(self, configuration: Configuration, began: float) -> RoundAudit:
        """The round is over, which began before there was anything to draft with."""
        done = time.perf_counter()
        return RoundAudit(
            arm=f"{configuration.name}@{configuration.gamma}",
            entropies=self._entropies(),
            draft_seconds=self._drafted - self._drafting,
            verify_seconds=self._verified - self._drafted,
            other_seconds=self._drafting - began + done - self._verified,
        )

    def _entropies(self) -> tuple[float, ...]:
        heard, plain = self.policy.heard, self.policy.plain
        if not heard:
            return ()
        distributions = (plain.untempered(logits) for logits in heard)
        return tuple(
            torch.stack(
                [torch.special.entr(distribution).sum(-1).mean() for distribution in distributions]
            ).tolist()
        )


@dataclass(frozen=True)
class _Overhearing(SamplingPolicy):
    """Does what `plain` does, and keeps the logits of each position that is drawn from."""

    plain: SamplingPolicy = field(default_factory=SamplingPolicy)
    heard: list[Tensor] = field(default_factory=list)

    def distribution(self, logits: Tensor) -> Tensor:
        self.heard.append(logits.clone())  # a compiled runner writes its next ones in their place
        return self.plain.distribution(logits)

    def draw_with_distribution(self, logits: Tensor, chance: RandomSource) -> tuple[Tensor, Tensor]:
        self.heard.append(logits.clone())
        return self.plain.draw_with_distribution(logits, chance)

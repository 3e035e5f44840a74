"""The audit of rounds: an observer that records who drafted, how unsure and how long."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillspec.speculation.decoding.observers import DecodedRound, RoundObserver
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.records import RoundAudit, RoundRecord
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy


class Audit(RoundObserver):
    """Adds a `RoundAudit` to every record. It comes last, so that its times cover all learning.

    Drafts must draw under `policy` in place of the plain one. At temperature 0 the distributions
    that verification sees are one-hot, so entropies need the logits. The policy sees the logits of
    every token that a draft draws, for each kind of draft. The audit reads them after it has taken
    the round's time, which costs the round a copy of the logits.
    """

    def __init__(self, policy: SamplingPolicy) -> None:
        self.policy = _RecordingPolicy(policy.temperature, policy.top_k, policy.nucleus, policy)
        self._began = self._started = self._drafted = self._verified = 0.0

    def round_started(self, began: float) -> None:
        self.policy.recorded.clear()
        self._began, self._started = began, time.perf_counter()

    def drafted(self, draft: Runner | None) -> None:
        if draft is not None:
            draft.synchronize()
        self._drafted = time.perf_counter()

    def verified(self, target: Runner) -> None:
        target.synchronize()
        self._verified = time.perf_counter()

    def committed(self, decoded: DecodedRound, record: RoundRecord) -> RoundRecord:
        done = time.perf_counter()
        configuration = decoded.configuration
        audit = RoundAudit(
            arm=f"{configuration.name}@{configuration.gamma}",
            entropies=self._entropies(),
            draft_seconds=self._drafted - self._started,
            verify_seconds=self._verified - self._drafted,
            other_seconds=self._started - self._began + done - self._verified,
        )
        return record._replace(audit=audit)

    def _entropies(self) -> tuple[float, ...]:
        """Entropy in nats at each position that was drawn from; of several rows, their mean."""
        recorded, plain = self.policy.recorded, self.policy.plain
        if not recorded:
            return ()
        distributions = (plain.untempered(logits) for logits in recorded)
        return tuple(
            torch.stack(
                [torch.special.entr(distribution).sum(-1).mean() for distribution in distributions]
            ).tolist()
        )


@dataclass(frozen=True)
class _RecordingPolicy(SamplingPolicy):
    """Does what `plain` does, and keeps the logits of each position that is drawn from."""

    plain: SamplingPolicy = field(default_factory=SamplingPolicy)
    recorded: list[Tensor] = field(default_factory=list)

    def distribution(self, logits: Tensor) -> Tensor:
        self.recorded.append(logits.clone())  # a compiled runner overwrites its last logits
        return self.plain.distribution(logits)

    def draw_with_distribution(
        self, logits: Tensor, random_source: RandomSource
    ) -> tuple[Tensor, Tensor]:
        self.recorded.append(logits.clone())
        return self.plain.draw_with_distribution(logits, random_source)

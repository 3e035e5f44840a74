"""Where the seconds go: rollout, target, update, probe, checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRAINING_PHASES = ("rollout", "target", "update")
PHASES = (*TRAINING_PHASES, "probe", "checkpoint")


class StageClock:
    """Seconds by phase, summed over the run; a phase's end waits for the device.

    Training time is what the TRAINING_PHASES took: probes and checkpoints are not part of it, so
    that two runs of equal `max_minutes` train equally long however often they are measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds[name] += time.perf_counter() - started

    @property
    def training_seconds(self) -> float:
        return sum(self.seconds[name] for name in TRAINING_PHASES)

"""Seconds of a run by phase: rollout, target, update, probe, checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRAINING_PHASES = ("rollout", "target", "update")
PHASES = (*TRAINING_PHASES, "probe", "checkpoint")


class StageClock:
    """Seconds by phase, summed over the run. The end of a phase waits for the device.

    Training time is the sum of TRAINING_PHASES. It leaves out probes and checkpoints, so two runs
    of equal `max_minutes` train equally long, however often a probe measures them.

    Attributes:
        device: Synchronised at the end of each phase.
        seconds: By phase.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of a `with` block to the phase `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds[name] += time.perf_counter() - started

    @property
    def training_seconds(self) -> float:
        """Sum of the TRAINING_PHASES."""
        return sum(self.seconds[name] for name in TRAINING_PHASES)

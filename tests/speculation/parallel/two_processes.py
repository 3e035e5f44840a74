"""A pair whose forwards take a while, for tests with real processes; spawned ones import this."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from distillspec.speculation.runner import Runner
from tests.speculation.bigram import BigramRunner

V = 50
CAPACITY = 4096


def random_table(V: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(V, V, generator=generator, dtype=torch.float64) * 1.5


class Slow(BigramRunner):
    """Sleeps as a device works: the other process has the core."""

    seconds = 0.01

    def feed(self, tokens: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return super().feed(tokens)


class Quicker(Slow):
    seconds = 0.002


def make_target() -> Runner:
    return Slow(0.4 * random_table(V, 8) + random_table(V, 7), capacity=CAPACITY)


def make_draft() -> Runner:
    return Quicker(random_table(V, 7), capacity=CAPACITY)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"

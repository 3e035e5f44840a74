"""The two sides of CARD in one process, in the order a schedule wants: late, idle, or lying."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch

from distillspec.speculation.parallel.ahead import AheadDraft
from distillspec.speculation.parallel.candidates import Candidates, Snapshot
from distillspec.speculation.parallel.shared_buffer import Published
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.branches import HistoryRunner

Schedule = Callable[[tuple[int, ...]], list[str]]
"""What happens before a query, given the text so far: "grow", "hear" the next message."""


def random_schedule(seed: int) -> Schedule:
    """An adversary who knows all that has been emitted, and acts on it."""

    def schedule(text: tuple[int, ...]) -> list[str]:
        rng = random.Random(f"{seed} {text}")
        return [rng.choice(["grow", "grow", "hear"]) for _ in range(rng.randrange(6))]

    return schedule


def prompt_schedule(text: tuple[int, ...]) -> list[str]:
    """Every message is heard at once, and a layer grown."""
    return ["hear", "hear", "grow"]


class ScheduledDraft:
    """A `CandidateSource` whose messages wait until the schedule lets them be heard."""

    busy_seconds = 0.0
    capacity = 64

    def __init__(
        self, table: torch.Tensor, schedule: Schedule, *, width: int = 2, depth: int = 3
    ) -> None:
        self._ahead = AheadDraft(HistoryRunner(table, capacity=64), Candidates(width, depth))
        self._schedule = schedule
        self._text: tuple[int, ...] = ()
        self._unheard: list[list[int]] = []

    def start(self, prompt: Sequence[int], policy: SamplingPolicy) -> None:
        self._ahead.start(prompt, policy)
        self._text, self._unheard = tuple(prompt), []

    def wait(self) -> None:
        """It has read the prompt already."""

    def query(self) -> Published:
        for action in self._schedule(self._text):
            if action == "grow":
                self._ahead.grow()
            elif self._unheard:
                self._ahead.follow(self._unheard.pop(0))
        ahead = self._ahead
        return Published(1, ahead.committed, ahead.steps, ahead.snapshot())

    def follow(self, tokens: Sequence[int]) -> None:
        self._text += tuple(tokens)
        self._unheard.append(list(tokens))

    def finish(self) -> None:
        """Nothing goes on by itself here."""


class LyingDraft(ScheduledDraft):
    """Shows candidates that nobody has computed: any tree over V tokens, a new one each query."""

    def __init__(self, table: torch.Tensor, seed: int) -> None:
        super().__init__(table, prompt_schedule)
        self._seed = seed
        self._V = len(table)

    def query(self) -> Published:
        rng = random.Random(f"{self._seed} {self._text}")
        n = rng.randrange(6)
        tokens = [rng.randrange(self._V) for _ in range(n)]
        parents = [rng.randrange(-1, number) for number in range(n)]
        weights = [rng.random() for _ in range(n)]
        return Published(1, len(self._text), 0, Snapshot(tokens, parents, weights))

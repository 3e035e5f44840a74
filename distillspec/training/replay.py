"""A ring of the latest responses that were written during training."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distillspec.corpus.batches.tree_rows import RejectedBranches

Tokens = Sequence[int]


class Completed(NamedTuple):
    """Token ids; the response's end-of-text included, where it ended there.

    states: [t, H], the target's hidden states that predict the t tokens in the loss, and those of
    the visits after them, on the CPU; None where they are not known. visits: see `corpus/visits`.
    """

    prompt: Tokens
    response: Tokens
    states: Tensor | None = None
    visits: RejectedBranches | None = None


@dataclasses.dataclass(eq=False)
class _Entry:
    row: Completed
    step: int


class ReplayBuffer:
    """The latest `capacity` responses that were written, each with the step it was written at."""

    def __init__(self, capacity: int, max_age: int) -> None:
        """max_age: steps after which a response is drawn no more."""
        self._entries: deque[_Entry] = deque(maxlen=capacity)
        self._max_age = max_age

    def add(self, rows: Sequence[Completed], step: int) -> None:
        """What step `step` has written; the oldest give way."""
        self._entries.extend(_Entry(row, step) for row in rows)

    def draw(self, count: int, step: int, generator: torch.Generator) -> list[Completed]:
        """Different ones of earlier steps, none too old: at most `count`, fewer where fewer are."""
        young = [one.row for one in self._entries if step - self._max_age <= one.step < step]
        order = torch.randperm(len(young), generator=generator, device=generator.device).tolist()
        return [young[place] for place in order[:count]]

    def learn(self, row: Completed, states: Tensor) -> None:
        """What the target says of a row, where the ring holds it."""
        for entry in self._entries:
            if entry.row is row:
                entry.row = row._replace(states=states.cpu())

    def state_dict(self) -> list[dict[str, Any]]:
        """The entries, oldest first, as plain values and tensors."""
        return [
            {
                "prompt": list(one.row.prompt),
                "response": list(one.row.response),
                "states": one.row.states,
                "step": one.step,
            }
            for one in self._entries
        ]

    def load_state_dict(self, entries: Sequence[dict[str, Any]]) -> None:
        """Hold these."""
        self._entries.clear()
        self._entries.extend(
            _Entry(Completed(one["prompt"], one["response"], one["states"]), one["step"])
            for one in entries
        )

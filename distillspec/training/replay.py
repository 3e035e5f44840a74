"""A buffer of the latest responses that models wrote during training."""

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
    """A prompt with its response.

    Attributes:
        prompt: Token ids.
        response: Token ids, with the end-of-text token if the response ended with it.
        states: The target's hidden states that predict the t tokens in the loss, then those of the
            rejected branches, [t, H], on the CPU. None if they are unknown.
        branches: Drafted tokens that verification rejected, and the weight of each token.
        is_stored: Whether the response was known before training.
    """

    prompt: Tokens
    response: Tokens
    states: Tensor | None = None
    branches: RejectedBranches | None = None
    is_stored: bool = False


@dataclasses.dataclass(eq=False)
class _Entry:
    row: Completed
    step: int


class ReplayBuffer:
    """The latest responses that models wrote, each with the step that wrote it."""

    def __init__(self, capacity: int, max_age: int) -> None:
        """Make an empty buffer.

        Args:
            capacity: Responses to hold; new ones replace the oldest.
            max_age: Steps after which a response is no longer drawn.
        """
        self._entries: deque[_Entry] = deque(maxlen=capacity)
        self._max_age = max_age

    def add(self, rows: Sequence[Completed], step: int) -> None:
        """Add the responses that `step` wrote."""
        self._entries.extend(_Entry(row, step) for row in rows)

    def draw(self, count: int, step: int, generator: torch.Generator) -> list[Completed]:
        """Draw responses of earlier steps without replacement.

        Args:
            count: Responses wanted; fewer are returned if the buffer has fewer.
            step: The current step. Its own responses and those older than `max_age` are left out.
            generator: Decides the draw.
        """
        young = [entry.row for entry in self._entries if step - self._max_age <= entry.step < step]
        order = torch.randperm(len(young), generator=generator, device=generator.device).tolist()
        return [young[index] for index in order[:count]]

    def learn(self, row: Completed, states: Tensor) -> None:
        """Store the target's hidden states of `row` if the buffer holds it."""
        for entry in self._entries:
            # By identity, because different steps may have written equal rows.
            if entry.row is row:
                entry.row = row._replace(states=states.cpu())

    def state_dict(self) -> list[dict[str, Any]]:
        """The entries, oldest first, as plain values and tensors."""
        return [
            {
                "prompt": list(entry.row.prompt),
                "response": list(entry.row.response),
                "states": entry.row.states,
                "step": entry.step,
            }
            for entry in self._entries
        ]

    def load_state_dict(self, entries: Sequence[dict[str, Any]]) -> None:
        """Replace the contents by `entries`, which `state_dict` returned."""
        self._entries.clear()
        self._entries.extend(
            _Entry(Completed(entry["prompt"], entry["response"], entry["states"]), entry["step"])
            for entry in entries
        )

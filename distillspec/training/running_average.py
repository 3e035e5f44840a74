"""A moving average of the draft's weights, often a better draft than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """average <- d average + (1 - d) weights after each step, over the trained weights.

    d is min(decay, (1 + t) / (10 + t)) after t steps, so that the average soon leaves the initial
    weights behind.
    """

    def __init__(self, draft: nn.Module, decay: float) -> None:
        self._weights = {n: p for n, p in draft.named_parameters() if p.requires_grad}
        self._decay = decay
        self._steps = 0
        self._average = {name: p.detach().clone() for name, p in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the average."""
        decay = min(self._decay, (1.0 + self._steps) / (10.0 + self._steps))
        self._steps += 1
        for name, weight in self._weights.items():
            self._average[name].lerp_(weight, 1.0 - decay)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """While this is open, the draft has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            # Copy in place, because the optimizer and wrappers hold these tensors.
            trained = weight.clone()
            weight.copy_(self._average[name])
            self._average[name].copy_(trained)

    def to(self, device: torch.device) -> None:
        """Move the average to `device`, where the weights are."""
        self._average = {name: value.to(device) for name, value in self._average.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The average by the names of the weights, and `steps`."""
        return {**self._average, "steps": torch.tensor(self._steps)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved average."""
        self._steps = int(state["steps"])
        for name, value in self._average.items():
            value.copy_(state[name])

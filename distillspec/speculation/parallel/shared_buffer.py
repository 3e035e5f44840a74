"""The memory that draft and target share: the present candidates, and signs of life."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import NamedTuple

import torch

from distillspec.speculation.parallel.candidates import Snapshot

_HEADER = 4  # request, committed, steps, nodes
_WAIT_SECONDS = 0.05


class Published(NamedTuple):
    """Candidates of a request's text.

    Attributes:
        request: The number of the request.
        committed: Tokens of the text after which the candidates stand.
        steps: Forwards of the draft for this request so far.
        snapshot: The candidates.
    """

    request: int
    committed: int
    steps: int
    snapshot: Snapshot


class SharedBuffer:
    """Written by the draft, read by the target; each locks it just long enough to copy.

    The memory has no name and is gone when both processes are; the lock has a name until then. A
    process that is killed or stopped while it copies never releases the lock. The target then
    checks whether the draft lives, and the draft ends with the target.
    """

    def __init__(self, context: BaseContext, most: int) -> None:
        """Make a buffer before the process starts.

        Args:
            context: Of the process that will share it.
            most: Nodes that it has room for.
        """
        self._max_nodes = most
        self._lock = context.Lock()
        self._numbers = torch.zeros(_HEADER + 2 * most, dtype=torch.long).share_memory_()
        self._log_weights = torch.zeros(most, dtype=torch.float64).share_memory_()

    @property
    def bytes(self) -> int:
        return int(self._numbers.nbytes) + int(self._log_weights.nbytes)

    def publish(self, published: Published) -> None:
        """Replace the candidates."""
        tokens, parents, log_weights = published.snapshot
        n = len(tokens)
        assert n <= self._max_nodes, "more candidates than the buffer has room for"
        head = [published.request, published.committed, published.steps, n]
        # Built before the lock is taken, which is then held only for the copy.
        numbers = torch.tensor([*head, *tokens, *parents])
        weights = torch.tensor(log_weights, dtype=torch.float64)
        # The draft may wait without limit, since it ends with the target.
        self._hold(lambda: None)
        try:
            self._numbers[: len(numbers)] = numbers
            self._log_weights[:n] = weights
        finally:
            self._lock.release()

    def read(self, *, while_waiting: Callable[[], None]) -> Published:
        """The newest candidates; `while_waiting` raises if the draft has stopped."""
        self._hold(while_waiting)
        try:
            n = int(self._numbers[_HEADER - 1])
            numbers = self._numbers[: _HEADER + 2 * n].tolist()
            weights = self._log_weights[:n].tolist()
        finally:
            self._lock.release()
        request, committed, steps = numbers[: _HEADER - 1]
        tokens = numbers[_HEADER : _HEADER + n]
        return Published(
            request, committed, steps, Snapshot(tokens, numbers[_HEADER + n :], weights)
        )

    def _hold(self, while_waiting: Callable[[], None]) -> None:
        """Wait for the lock; `while_waiting` is called again and again, and may raise."""
        while not self._lock.acquire(timeout=_WAIT_SECONDS):
            while_waiting()


class Heartbeat:
    """What the working process shows: that it lives, and how long it was busy."""

    def __init__(self) -> None:
        self._beats = torch.zeros(1, dtype=torch.long).share_memory_()
        self._busy = torch.zeros(1, dtype=torch.float64).share_memory_()

    def beat(self) -> None:
        self._beats += 1

    def add(self, seconds: float) -> None:
        self._busy += seconds

    @property
    def beats(self) -> int:
        return int(self._beats)

    @property
    def busy_seconds(self) -> float:
        return float(self._busy)

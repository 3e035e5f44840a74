"""The shipped parallel protocols in virtual time: what two real devices would make of a pair.

Nothing waits. A forward moves a clock by its given cost, and the draft gets as many steps as fit in
between. The draft and the decoder are the shipped ones. The target is a text that it has drawn
before, since no candidate can change what it draws.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from distillspec.speculation.parallel.ahead import AheadDraft
from distillspec.speculation.parallel.pearl import Begin, BlockWorker, GoOn, MakeBlock, PearlBlock
from distillspec.speculation.parallel.shared_buffer import Published
from distillspec.speculation.runner import TextRunner
from distillspec.speculation.sampling import SamplingPolicy

Cost = Callable[[int], float]
"""Time of a forward over that many tokens, in any unit."""


class VirtualClock:
    """The present time, `now`, in the unit of the costs."""

    def __init__(self) -> None:
        self.now = 0.0


class TextTarget:
    """A `TextRunner` that predicts the next token of its text, long [T], and moves the clock.

    Decode it at temperature 0. Like any target it is fed candidates, which change nothing.
    """

    capacity = positions = 1 << 30

    def __init__(self, text: Tensor, vocab_size: int, clock: VirtualClock, cost: Cost) -> None:
        self.vocab_size, self.length = vocab_size, 0
        self._text, self._clock, self._cost = text, clock, cost

    def reset(self) -> None:
        self.length = 0

    def feed(self, tokens: Tensor) -> Tensor:
        size = tokens.shape[1]
        self._clock.now += self._cost(size)
        at = torch.arange(self.length, self.length + size) + 1
        self.length += size
        following = self._text[at.clamp(max=len(self._text) - 1)]
        return torch.nn.functional.one_hot(following, self.vocab_size)[None].float()

    def rollback(self, length: int) -> None:
        self.length = length

    def synchronize(self) -> None:
        """Nothing runs asynchronously."""


class TimedTarget:
    """A real target whose forwards move the clock by a given cost."""

    def __init__(self, runner: TextRunner, clock: VirtualClock, cost: Cost) -> None:
        self._runner, self._clock, self._cost = runner, clock, cost
        self.vocab_size = runner.vocab_size
        self.capacity, self.positions = runner.capacity, runner.positions

    @property
    def length(self) -> int:
        return self._runner.length

    def reset(self) -> None:
        self._runner.reset()

    def feed(self, tokens: Tensor) -> Tensor:
        self._clock.now += self._cost(tokens.shape[1])
        return self._runner.feed(tokens)

    def rollback(self, length: int) -> None:
        self._runner.rollback(length)

    def synchronize(self) -> None:
        """Nothing runs asynchronously."""


class VirtualBlocks:
    """PEARL's draft: a block is complete when its steps have had their time."""

    def __init__(self, worker: BlockWorker, q: Tensor, clock: VirtualClock, cost: Cost) -> None:
        """q: the tensor that the worker writes into."""
        self._worker, self._q, self._clock, self._cost = worker, q, clock, cost
        self._tokens: list[int] = []
        self._ready_at = 0.0
        self._busy = 0.0

    @property
    def capacity(self) -> int:
        return self._worker.capacity

    @property
    def busy_seconds(self) -> float:
        return self._busy

    def start(self, prompt: Sequence[int], policy: SamplingPolicy, seed: int) -> None:
        self._worker.receive(Begin(0, list(prompt), policy, seed))

    def wait(self) -> None:
        """The draft has read the prompt."""

    def begin(self, gamma: int) -> None:
        made = self._worker.receive(MakeBlock(0, gamma))
        assert made is not None
        self._tokens = made[1]
        seconds = gamma * self._cost(1)
        self._ready_at = self._clock.now + seconds
        self._busy += seconds

    def collect(self) -> PearlBlock:
        self._clock.now = max(self._clock.now, self._ready_at)
        return PearlBlock(self._tokens, self._q[: len(self._tokens)].clone())

    def follow(self, length: int, token: int) -> None:
        self._worker.receive(GoOn(length, token))


class VirtualDraft:
    """CARD's draft: it makes the steps that the clock leaves it, and reads messages between two.

    policy: the policy under which the text was drawn.
    """

    def __init__(
        self, ahead: AheadDraft, policy: SamplingPolicy, clock: VirtualClock, cost: Cost
    ) -> None:
        self._ahead, self._policy, self._clock, self._cost = ahead, policy, clock, cost
        self._free_at = 0.0
        self._busy = 0.0
        self._unread: deque[tuple[float, list[int]]] = deque()

    @property
    def capacity(self) -> int:
        return self._ahead.capacity

    @property
    def busy_seconds(self) -> float:
        return self._busy

    def start(self, prompt: Sequence[int], policy: SamplingPolicy) -> None:
        self._ahead.start(prompt, self._policy)
        self._unread.clear()

    def wait(self) -> None:
        """Both have read the prompt: the clock starts for the draft."""
        self._free_at = self._clock.now

    def query(self) -> Published:
        self._catch_up()
        ahead = self._ahead
        return Published(1, ahead.committed, ahead.steps, ahead.snapshot())

    def follow(self, tokens: Sequence[int]) -> None:
        self._catch_up()
        self._unread.append((self._clock.now, list(tokens)))

    def finish(self) -> None:
        self._unread.clear()

    def _catch_up(self) -> None:
        """Make all steps that end by now; a later step has no effect yet."""
        while True:
            while self._unread and self._unread[0][0] <= self._free_at:
                self._ahead.follow(self._unread.popleft()[1])
            size = self._ahead.next_size()
            if size == 0:  # it waits for the next message
                if not self._unread or self._unread[0][0] > self._clock.now:
                    self._free_at = max(self._free_at, self._clock.now)
                    if not self._unread:
                        return
                self._free_at = max(self._free_at, self._unread[0][0])
                continue
            end = self._free_at + self._cost(size)
            if end > self._clock.now:
                return
            self._ahead.grow()
            self._busy += end - self._free_at
            self._free_at = end

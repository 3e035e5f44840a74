"""What decoders of two processes share: a text, timed, at once or round by round."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from typing import Protocol

from torch import Tensor

from distillspec.speculation.limits import NO_TOKENS
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.records import Busy, Generation, Round
from distillspec.speculation.runner import TextRunner
from distillspec.speculation.sampling import SamplingPolicy


class Partner(Protocol):
    """A draft that works while the target does, in this process or another."""

    @property
    def capacity(self) -> int:
        """Tokens of the longest text it can hold."""
        ...

    @property
    def busy_seconds(self) -> float:
        """Time that the draft has worked so far."""
        ...


class ParallelDecoder(ABC):
    """Decodes one text at a time. A subclass defines how a text starts and what a round is."""

    def __init__(
        self,
        target: TextRunner,
        partner: Partner,
        policy: SamplingPolicy,
        random_source: RandomSource,
    ) -> None:
        self._target, self._partner = target, partner
        self._policy, self._random_source = policy, random_source
        self._busy = 0.0  # seconds that the target has worked on this text

    def decode(
        self, prompt: Tensor, *, max_new_tokens: int, eos_token_ids: frozenset[int] = NO_TOKENS
    ) -> Generation:
        """Continue prompt, long [T], T >= 1, by at most max_new_tokens or up to an end token."""
        started = time.perf_counter()
        self._start(prompt, max_new_tokens)
        self._busy = 0.0
        ready = time.perf_counter()
        drafting = self._partner.busy_seconds
        rounds = list(self._rounds(prompt, max_new_tokens, eos_token_ids))
        done = time.perf_counter()
        return Generation.of_rounds(
            rounds,
            eos_token_ids,
            prefill_seconds=ready - started,
            decode_seconds=done - ready,
            busy=Busy(self._busy, self._partner.busy_seconds - drafting),
        )

    def rounds(
        self, prompt: Tensor, *, max_new_tokens: int, eos_token_ids: frozenset[int] = NO_TOKENS
    ) -> Generator[Round, None, None]:
        """`decode` as a stream: the tokens of each round, as soon as they are known."""
        self._start(prompt, max_new_tokens)
        yield from self._rounds(prompt, max_new_tokens, eos_token_ids)

    @abstractmethod
    def _start(self, prompt: Tensor, max_new_tokens: int) -> None:
        """Let both models read the prompt but its last token; the clock starts after it."""

    @abstractmethod
    def _rounds(
        self, prompt: Tensor, max_new_tokens: int, eos_token_ids: frozenset[int]
    ) -> Iterator[Round]:
        """Yield round after round until the text ends."""

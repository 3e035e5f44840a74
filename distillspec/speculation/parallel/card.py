"""CARD: the target asks the shared candidates for the likeliest path, and corrects it (2508.04462).

The draft runs ahead in its own process and never waits; the target never waits for it longer than
the query takes. After each token the target draws its own next one, y ~ p, and goes on along the
path if y is what the path has there. So every emitted token is the target's own draw, whatever the
candidates are and however late they come: lossless at any temperature. (Accepting the likeliest
candidate with min(1, p/q) would not be: it was not drawn from q.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from torch import Tensor

from distillspec.speculation.limits import check_room, longest_text, prefill, up_to_end
from distillspec.speculation.parallel.ahead import AheadDraft
from distillspec.speculation.parallel.candidates import Candidates, likeliest_path
from distillspec.speculation.parallel.decoder import ParallelDecoder, Partner
from distillspec.speculation.parallel.process import DraftProcess, spawning
from distillspec.speculation.parallel.shared_buffer import Published, SharedBuffer
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.records import Round, RoundRecord, TokenStatus
from distillspec.speculation.runner import Runner, TextRunner
from distillspec.speculation.sampling import SamplingPolicy, check_finite


class CandidateSource(Partner, Protocol):
    """A draft that runs ahead, wherever it lives."""

    def start(self, prompt: Sequence[int], policy: SamplingPolicy) -> None:
        """A new text; returns at once."""
        ...

    def wait(self) -> None:
        """Until it has read the prompt; from then on it works."""
        ...

    def query(self) -> Published:
        """The candidates as they stand now."""
        ...

    def follow(self, tokens: Sequence[int]) -> None:
        """The text went on by these; returns at once."""
        ...

    def finish(self) -> None:
        """The text is over."""
        ...


class CardDecoder(ParallelDecoder):
    """Decodes one text at a time, with the distribution of the target under the policy.

    longest: tokens of a path that one target forward verifies, at most.
    """

    def __init__(
        self,
        target: TextRunner,
        draft: CandidateSource,
        policy: SamplingPolicy,
        chance: RandomSource,
        *,
        longest: int,
    ) -> None:
        super().__init__(target, draft, policy, chance)
        self._draft = draft
        self._longest = longest

    def _start(self, prompt: Tensor, max_new_tokens: int) -> None:
        check_room(prompt, max_new_tokens, min(longest_text(self._target), self._draft.capacity))
        self._draft.start(prompt.tolist(), self._policy)
        prefill(prompt, max_new_tokens, self._target)
        self._draft.wait()  # so that neither has a head start when the clock begins

    def _rounds(
        self, prompt: Tensor, max_new_tokens: int, eos_token_ids: frozenset[int]
    ) -> Iterator[Round]:
        """Between rounds the target's cache lacks the last committed token."""
        committed = prompt.tolist()
        limit = len(committed) + max_new_tokens
        is_finished = False
        steps = 0
        try:
            while len(committed) < limit and not is_finished:
                found = self._draft.query()
                longest = min(self._longest, longest_text(self._target) - len(committed))
                path = likeliest_path(found.snapshot, committed[found.committed :], longest)
                drawn = self._drawn(prompt.new_tensor([[committed[-1], *path]]))
                accepted = _matching(drawn, path)
                self._target.rollback(len(committed) + accepted)
                room = limit - len(committed)
                tokens, is_finished = up_to_end(drawn[: accepted + 1][:room], eos_token_ids)
                committed += tokens
                self._draft.follow(tokens)
                yield Round(
                    tokens,
                    _fates(path, accepted)[: len(tokens)],
                    RoundRecord(
                        drafted=len(path),
                        accepted=accepted,
                        emitted=len(tokens),
                        draft_steps=found.steps - steps,
                        cut=len(tokens) <= accepted or room <= self._longest,
                    ),
                )
                steps = found.steps
        finally:
            self._draft.finish()

    def _drawn(self, block: Tensor) -> list[int]:
        """What the target says after each token of the block long [1, G]."""
        started = time.perf_counter()
        found = self._policy.draw_with_doubt(self._target.feed(block)[0], self._chance)
        drawn: list[int] = found.token.tolist()
        self._busy += time.perf_counter() - started
        check_finite("the target", found.doubt)
        return drawn


class CardProcess:
    """A draft in a process of its own, which runs ahead and shows its candidates on a board.

    make: picklable, makes the draft's runner there. width: N, nodes of a layer; depth: layers.
    The remaining arguments are `DraftProcess`'s. It serves one text at a time: a new one ends the
    one before.
    """

    def __init__(
        self,
        make: Callable[[], Runner],
        *,
        width: int,
        depth: int,
        threads: int | None = None,
        hang_seconds: float = 15.0,
    ) -> None:
        self._board = SharedBuffer(spawning, width * depth)
        self._process = DraftProcess(
            partial(_CardWorker, make, self._board, width, depth),
            name="card",
            threads=threads,
            hang_seconds=hang_seconds,
        )
        self._request = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def bytes(self) -> int:
        """Of the shared candidates."""
        return self._board.bytes

    @property
    def capacity(self) -> int:
        return self._process.capacity

    @property
    def busy_seconds(self) -> float:
        return self._process.busy_seconds

    def start(self, prompt: Sequence[int], policy: SamplingPolicy) -> None:
        self._request += 1
        self._process.send(_Begin(self._request, list(prompt), policy))

    def wait(self) -> None:
        while self._process.answer() != self._request:
            pass  # the answer to an earlier request, which nobody waited for
        self._process.send(_Go(self._request))

    def query(self) -> Published:
        self._process.check()
        found = self._board.read(while_waiting=self._process.check)
        assert found.request == self._request, "one text at a time"
        return found

    def follow(self, tokens: Sequence[int]) -> None:
        self._process.send(_Follow(self._request, list(tokens)))

    def finish(self) -> None:
        if self._process.is_open:
            self._process.send(_Rest(self._request))

    def close(self) -> None:
        self._process.close()


class _Begin(NamedTuple):
    request: int
    prompt: list[int]
    policy: SamplingPolicy


class _Go(NamedTuple):
    request: int


class _Follow(NamedTuple):
    request: int
    tokens: list[int]


class _Rest(NamedTuple):
    request: int


class _CardWorker:
    """The draft's side, in its process. What belongs to an earlier request is passed over."""

    def __init__(
        self, make: Callable[[], Runner], board: SharedBuffer, width: int, depth: int
    ) -> None:
        self._ahead = AheadDraft(make(), Candidates(width, depth))
        self._board = board
        self._request = 0
        self._is_resting = True

    @property
    def capacity(self) -> int:
        return self._ahead.capacity

    def receive(self, message: _Begin | _Go | _Follow | _Rest) -> int | None:
        if isinstance(message, _Begin):
            self._ahead.start(message.prompt, message.policy)
            self._request, self._is_resting = message.request, True
            self._publish()
            return message.request
        if message.request == self._request:
            match message:
                case _Go():
                    self._is_resting = False
                case _Follow(_, tokens):
                    self._ahead.follow(tokens)
                    self._publish()
                case _Rest():
                    self._is_resting = True
        return None

    def work(self) -> bool:
        if self._is_resting or not self._ahead.grow():
            return False
        self._publish()
        return True

    def _publish(self) -> None:
        ahead = self._ahead
        self._board.publish(
            Published(self._request, ahead.committed, ahead.steps, ahead.snapshot())
        )


def _matching(drawn: list[int], path: list[int]) -> int:
    """How far the path is what was drawn."""
    for position, token in enumerate(path):
        if drawn[position] != token:
            return position
    return len(path)


def _fates(path: list[int], accepted: int) -> list[TokenStatus]:
    if not path:
        return [TokenStatus.PLAIN]
    last = TokenStatus.BONUS if accepted == len(path) else TokenStatus.CORRECTED
    return [TokenStatus.ACCEPTED] * accepted + [last]

"""CARD: the target verifies the most probable path of shared candidates (2508.04462).

The draft runs ahead in its own process and never waits. The target waits for the draft no longer
than a query takes. After each token the target draws its own next token, y ~ p, and goes on along
the path if y is what the path has there. So the target draws every emitted token itself, whatever
the candidates are and however late they come: CARD is lossless at any temperature. Accepting the
most probable candidate with min(1, p/q) would not be lossless, since it was not drawn from q.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from torch import Tensor

from distillspec.speculation.limits import check_room, longest_text, prefill, up_to_end
from distillspec.speculation.parallel.ahead import AheadDraft
from distillspec.speculation.parallel.candidates import Candidates, most_probable_path
from distillspec.speculation.parallel.decoder import ParallelDecoder, Partner
from distillspec.speculation.parallel.process import DraftProcess, spawning
from distillspec.speculation.parallel.shared_buffer import Published, SharedBuffer
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.records import Round, RoundRecord, TokenStatus
from distillspec.speculation.runner import Runner, TextRunner
from distillspec.speculation.sampling import SamplingPolicy, check_finite


class CandidateSource(Partner, Protocol):
    """A draft that runs ahead, in this process or another."""

    def start(self, prompt: Sequence[int], policy: SamplingPolicy) -> None:
        """Start a new text; returns at once."""
        ...

    def wait(self) -> None:
        """Wait until the draft has read the prompt; from then on it works."""
        ...

    def query(self) -> Published:
        """The candidates as they stand now."""
        ...

    def follow(self, tokens: Sequence[int]) -> None:
        """Continue the text by these tokens; returns at once."""
        ...

    def finish(self) -> None:
        """End the text."""
        ...


class CardDecoder(ParallelDecoder):
    """Decodes one text at a time, with the distribution of the target under the policy."""

    def __init__(
        self,
        target: TextRunner,
        draft: CandidateSource,
        policy: SamplingPolicy,
        random_source: RandomSource,
        *,
        longest: int,
    ) -> None:
        """Make a decoder.

        Args:
            target: The model whose distribution the output has.
            draft: The candidates.
            policy: What makes a distribution of logits.
            random_source: The source of the target's draws.
            longest: The most tokens of a path that one target forward verifies.
        """
        super().__init__(target, draft, policy, random_source)
        self._draft = draft
        self._longest = longest

    def _start(self, prompt: Tensor, max_new_tokens: int) -> None:
        check_room(prompt, max_new_tokens, min(longest_text(self._target), self._draft.capacity))
        self._draft.start(prompt.tolist(), self._policy)
        prefill(prompt, max_new_tokens, self._target)
        self._draft.wait()  # both have read the prompt when the clock starts

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
                # 1. Take the candidates as they stand, which may be none.
                published = self._draft.query()
                longest = min(self._longest, longest_text(self._target) - len(committed))
                path = most_probable_path(
                    published.snapshot, committed[published.committed :], longest
                )

                # 2. Draw the target's own token after each token of the path.
                drawn = self._drawn(prompt.new_tensor([[committed[-1], *path]]))
                accepted = _matching(drawn, path)

                # 3. Commit the drawn tokens up to the first that leaves the path.
                self._target.rollback(len(committed) + accepted)
                room = limit - len(committed)
                tokens, is_finished = up_to_end(drawn[: accepted + 1][:room], eos_token_ids)
                committed += tokens
                self._draft.follow(tokens)
                yield Round(
                    tokens,
                    _statuses(path, accepted)[: len(tokens)],
                    RoundRecord(
                        drafted=len(path),
                        accepted=accepted,
                        emitted=len(tokens),
                        # Forwards since the last query, also those whose nodes are gone.
                        draft_steps=published.steps - steps,
                        cut=len(tokens) <= accepted or room <= self._longest,
                    ),
                )
                steps = published.steps
        finally:
            # Also where the caller drops the generator early.
            self._draft.finish()

    def _drawn(self, block: Tensor) -> list[int]:
        """What the target draws after each token of the block, long [1, G]."""
        started = time.perf_counter()
        draws = self._policy.draw_with_doubt(self._target.feed(block)[0], self._random_source)
        drawn: list[int] = draws.token.tolist()
        self._busy += time.perf_counter() - started
        check_finite("the target", draws.doubt)
        return drawn


class CardProcess:
    """A draft in its own process. It runs ahead and publishes its candidates in a shared buffer."""

    def __init__(
        self,
        make: Callable[[], Runner],
        *,
        width: int,
        depth: int,
        threads: int | None = None,
        hang_seconds: float = 15.0,
    ) -> None:
        """Start the process. It serves one text at a time; a new text ends the one before.

        Args:
            make: Picklable; makes the draft's runner in the process.
            width: N, the most nodes of a layer.
            depth: The most layers.
            threads: As for `DraftProcess`.
            hang_seconds: As for `DraftProcess`.
        """
        self._buffer = SharedBuffer(spawning, width * depth)
        self._process = DraftProcess(
            partial(_CardWorker, make, self._buffer, width, depth),
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
        """Size of the shared candidates."""
        return self._buffer.bytes

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
            pass  # an answer to an earlier request that was interrupted
        self._process.send(_Go(self._request))

    def query(self) -> Published:
        self._process.check()
        published = self._buffer.read(while_waiting=self._process.check)
        assert published.request == self._request, "one text at a time"
        return published

    def follow(self, tokens: Sequence[int]) -> None:
        self._process.send(_Follow(self._request, list(tokens)))

    def finish(self) -> None:
        if self._process.is_open:
            self._process.send(_Finish(self._request))

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


class _Finish(NamedTuple):
    request: int


class _CardWorker:
    """The draft's side, in its process. It ignores messages of earlier requests."""

    def __init__(
        self, make: Callable[[], Runner], buffer: SharedBuffer, width: int, depth: int
    ) -> None:
        self._ahead = AheadDraft(make(), Candidates(width, depth))
        self._buffer = buffer
        self._request = 0
        self._is_idle = True

    @property
    def capacity(self) -> int:
        return self._ahead.capacity

    def receive(self, message: _Begin | _Go | _Follow | _Finish) -> int | None:
        if isinstance(message, _Begin):
            self._ahead.start(message.prompt, message.policy)
            # Idle until `_Go`: no work before the target's clock starts.
            self._request, self._is_idle = message.request, True
            self._publish()
            return message.request
        if message.request == self._request:
            match message:
                case _Go():
                    self._is_idle = False
                case _Follow(_, tokens):
                    self._ahead.follow(tokens)
                    self._publish()
                case _Finish():
                    self._is_idle = True
        return None

    def work(self) -> bool:
        if self._is_idle or not self._ahead.grow():
            return False
        self._publish()
        return True

    def _publish(self) -> None:
        ahead = self._ahead
        self._buffer.publish(
            Published(self._request, ahead.committed, ahead.steps, ahead.snapshot())
        )


def _matching(drawn: list[int], path: list[int]) -> int:
    """How many tokens of the path equal what was drawn."""
    for position, token in enumerate(path):
        if drawn[position] != token:
            return position
    return len(path)


def _statuses(path: list[int], accepted: int) -> list[TokenStatus]:
    if not path:
        return [TokenStatus.PLAIN]
    last = TokenStatus.BONUS if accepted == len(path) else TokenStatus.CORRECTED
    return [TokenStatus.ACCEPTED] * accepted + [last]

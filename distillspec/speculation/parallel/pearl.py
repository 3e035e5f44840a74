"""PEARL: the draft makes the next block while the target verifies the last one.

In each round the draft makes gamma tokens while the target reads what was drafted before. Then the
target's distribution is known after every token of that. So it verifies all of them and the first
token of the new block, by the token rule with the q they were drawn from: lossless. If all are
kept, the next round reads the rest of the new block (post-verify). If not, the new block is
dropped, and the next round verifies a first token alone (pre-verify).

Source: Liu et al. 2408.11850.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.limits import check_room, longest_text, prefill, up_to_end
from distillspec.speculation.parallel.decoder import ParallelDecoder, Partner
from distillspec.speculation.parallel.process import DraftProcess
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.records import Round, RoundRecord, TokenStatus
from distillspec.speculation.runner import Runner, TextRunner
from distillspec.speculation.sampling import SamplingPolicy, check_finite
from distillspec.speculation.verify.token import residual


class PearlBlock(NamedTuple):
    """Drafted tokens in order.

    Attributes:
        tokens: G drafted tokens.
        q: The distribution each was drawn from, shape [G, V].
    """

    tokens: list[int]
    q: Tensor


class BlockSource(Partner, Protocol):
    """A draft that makes blocks while the target works, in this process or another."""

    def start(self, prompt: Sequence[int], policy: SamplingPolicy, seed: int) -> None:
        """Start a new text; returns at once."""
        ...

    def wait(self) -> None:
        """Wait until the draft has read the prompt."""
        ...

    def begin(self, gamma: int) -> None:
        """Draft a block after all that was drafted and followed so far; returns at once."""
        ...

    def collect(self) -> PearlBlock:
        """Wait for the last block."""
        ...

    def follow(self, length: int, token: int) -> None:
        """Cut the text to `length` tokens and append this token; returns at once."""
        ...


class PearlDecoder(ParallelDecoder):
    """Decodes one text at a time, with the distribution of the target under the policy.

    The protocol is best where drafting a block takes as long as verifying it.
    """

    def __init__(
        self,
        target: TextRunner,
        draft: BlockSource,
        policy: SamplingPolicy,
        random_source: RandomSource,
        *,
        gamma: int,
        seed: int,
    ) -> None:
        """Make a decoder.

        Args:
            target: The model whose distribution the output has.
            draft: The source of blocks.
            policy: What makes a distribution of logits, for both models.
            random_source: The source of the target's random choices.
            gamma: Tokens of a block, at least 1.
            seed: Of the draft's draws. They are independent of `random_source`, also for equal
                seeds.
        """
        assert gamma >= 1
        super().__init__(target, draft, policy, random_source)
        self._draft = draft
        self._gamma, self._seed = gamma, seed

    def _start(self, prompt: Tensor, max_new_tokens: int) -> None:
        """Two blocks may stand beyond the text when it ends, so they need room too."""
        room = min(longest_text(self._target), self._draft.capacity)
        check_room(prompt, max_new_tokens + 2 * self._gamma, room)
        self._draft.start(prompt.tolist(), self._policy, self._seed)
        prefill(prompt, max_new_tokens, self._target)
        self._draft.wait()

    def _rounds(
        self, prompt: Tensor, max_new_tokens: int, eos_token_ids: frozenset[int]
    ) -> Iterator[Round]:
        """Between rounds the target's cache lacks the last committed token and what is pending."""
        committed = prompt.tolist()
        limit = len(committed) + max_new_tokens
        pending = PearlBlock([], torch.empty((0, self._target.vocab_size)))
        is_finished = False
        while len(committed) < limit and not is_finished:
            # 1. The draft makes the next block while the target reads the pending one.
            self._draft.begin(self._gamma)
            p = self._distributions(prompt.new_tensor([[committed[-1], *pending.tokens]]))
            new = self._draft.collect()

            # 2. Verify the pending block and the first token of the new one.
            started = time.perf_counter()
            q = torch.cat([pending.q.to(p.device), new.q[:1].to(p.device)])
            block = PearlBlock([*pending.tokens, new.tokens[0]], q)
            check_finite("the target", p[:, 0])
            check_finite("the draft", block.q[:, 0])
            emitted = _verify(p, block, self._random_source)
            is_whole = len(emitted) == len(block.tokens) and emitted == block.tokens
            accepted = len(emitted) if is_whole else len(emitted) - 1
            self._target.rollback(len(committed) + len(emitted) - 1)

            # 3. The rest of the new block is pending now, unless a correction makes it worthless.
            if is_whole:
                pending = PearlBlock(new.tokens[1:], new.q[1:])
            else:
                pending = PearlBlock([], new.q[:0])
                self._draft.follow(len(committed) + accepted, emitted[-1])

            # 4. Commit what was emitted to the text.
            room = limit - len(committed)
            tokens, is_finished = up_to_end(emitted[:room], eos_token_ids)
            committed += tokens
            self._busy += time.perf_counter() - started
            last = TokenStatus.ACCEPTED if is_whole else TokenStatus.CORRECTED
            yield Round(
                tokens,
                ([TokenStatus.ACCEPTED] * (len(emitted) - 1) + [last])[: len(tokens)],
                RoundRecord(
                    drafted=len(block.tokens),
                    accepted=accepted,
                    emitted=len(tokens),
                    draft_steps=self._gamma,
                    cut=len(tokens) < len(emitted) or room < self._gamma,
                ),
            )

    def _distributions(self, unread: Tensor) -> Tensor:
        """p [G, V] after each of the unread tokens, long [1, G]; adds to the busy time."""
        started = time.perf_counter()
        p = self._policy.distribution(self._target.feed(unread)[0])
        self._target.synchronize()
        self._busy += time.perf_counter() - started
        return p


def _verify(p: Tensor, block: PearlBlock, random_source: RandomSource) -> list[int]:
    """Token verification of the pending block and the first token of the new one.

    Args:
        p: The target's distribution before each token, shape [G, V].
        block: G drafted tokens and their q.
        random_source: The source of the random choices.

    Returns:
        The tokens that were kept, and a correction unless all were kept.
    """
    drafted = torch.tensor(block.tokens, device=p.device).unsqueeze(1)
    ratio = (p.gather(1, drafted) / block.q.gather(1, drafted)).squeeze(1)
    # All trials are one call, so the host waits once for all of them.
    accepted: list[bool] = random_source.accept(ratio).tolist()
    if all(accepted):
        return list(block.tokens)
    kept = accepted.index(False)
    return [*block.tokens[:kept], int(random_source.draw(residual(p[kept], block.q[kept])))]


class PearlProcess:
    """A draft in its own process that makes blocks. Their q come through shared memory."""

    def __init__(
        self,
        make: Callable[[], Runner],
        *,
        gamma: int,
        vocab_size: int,
        threads: int | None = None,
        hang_seconds: float = 15.0,
    ) -> None:
        """Start the process.

        Args:
            make: Picklable; makes the draft's runner in the process.
            gamma: Tokens of the longest block.
            vocab_size: V.
            threads: As for `DraftProcess`.
            hang_seconds: As for `DraftProcess`.
        """
        self._q = torch.zeros(gamma, vocab_size).share_memory_()
        self._number = 0  # of the last message that gets an answer
        self._process = DraftProcess(
            partial(BlockWorker, make, self._q),
            name="pearl",
            threads=threads,
            hang_seconds=hang_seconds,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def bytes(self) -> int:
        """Size of the shared q."""
        return int(self._q.nbytes)

    @property
    def capacity(self) -> int:
        return self._process.capacity

    @property
    def busy_seconds(self) -> float:
        return self._process.busy_seconds

    def start(self, prompt: Sequence[int], policy: SamplingPolicy, seed: int) -> None:
        self._process.check()
        self._number += 1
        self._process.send(Begin(self._number, list(prompt), policy, seed))

    def wait(self) -> None:
        while self._process.answer() != (self._number, []):
            pass  # an answer of an earlier text that was interrupted

    def begin(self, gamma: int) -> None:
        self._process.check()
        self._number += 1
        self._process.send(MakeBlock(self._number, gamma))

    def collect(self) -> PearlBlock:
        # Answers of an interrupted round have an older number.
        number, tokens = self._process.answer()
        while number != self._number:
            number, tokens = self._process.answer()
        # The next block is written over it.
        return PearlBlock(tokens, self._q[: len(tokens)].clone())

    def follow(self, length: int, token: int) -> None:
        self._process.send(GoOn(length, token))

    def close(self) -> None:
        self._process.close()


class Begin(NamedTuple):
    number: int
    prompt: list[int]
    policy: SamplingPolicy
    seed: int


class MakeBlock(NamedTuple):
    number: int
    gamma: int


class GoOn(NamedTuple):
    length: int
    token: int


class BlockWorker:
    """The draft's side: drafts blocks and writes the distribution of every drawn token."""

    def __init__(
        self, make: Callable[[], Runner], q: Tensor, random_source: RandomSource | None = None
    ) -> None:
        """Make the draft.

        Args:
            make: Makes the draft's runner.
            q: float32 [G, V]; gets the distribution of every drawn token.
            random_source: The source of the draws; by default a generator from the seed of each
                text.
        """
        self._runner = make()
        self._q = q
        self._given = random_source
        self._text: list[int] = []
        self._policy = SamplingPolicy()
        # Until the first text brings its seed.
        self._random_source: RandomSource = random_source or _drafting_source(0)

    @property
    def capacity(self) -> int:
        return longest_text(self._runner)

    def receive(self, message: Begin | MakeBlock | GoOn) -> tuple[int, list[int]] | None:
        match message:
            case Begin(number, prompt, policy, seed):
                self._text, self._policy = list(prompt), policy
                self._random_source = self._given or _drafting_source(seed)
                self._runner.reset()
                if len(prompt) > 1:
                    self._runner.feed(torch.tensor([prompt[:-1]]))
                return number, []
            case MakeBlock(number, gamma):
                return number, [self._next(position) for position in range(gamma)]
            case GoOn(length, token):
                self._text[length:] = [token]
                # The cache may be shorter than `length`, since the last drawn token is unread.
                self._runner.rollback(min(length, self._runner.length))
        return None

    def work(self) -> bool:
        return False

    def _next(self, position: int) -> int:
        """Draw a token from the q that was written, in the precision it was written in."""
        logits = self._runner.feed(torch.tensor([self._text[self._runner.length :]]))[0, -1]
        self._q[position] = self._policy.distribution(logits)
        token = int(self._random_source.draw(self._q[position]))
        self._text.append(token)
        return token


def _drafting_source(seed: int) -> RandomSource:
    """A generator that shares no number with the target's, even if both have one seed."""
    return GeneratorSource(torch.Generator().manual_seed(derive_seed(seed, "draft of PEARL")))

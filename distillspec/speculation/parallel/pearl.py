"""PEARL: the next block is drafted while the last one is verified (Liu et al. 2408.11850).

Each round the draft makes gamma tokens and the target reads what was drafted before, both at once.
Then the target's distribution is known after every token of that, so it judges all of them and the
first token of the new block, by the token-wise rule with the q they were drawn from: lossless. If
all stay, the rest of the new block is what the next round reads (post-verify); if not, nothing is
left of it, and the next round judges a first token alone (pre-verify).
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
    """tokens: drafted, in order; q: [G, V], what each was drawn from."""

    tokens: list[int]
    q: Tensor


class BlockSource(Partner, Protocol):
    """A draft that makes blocks while others work, wherever it lives."""

    def start(self, prompt: Sequence[int], policy: SamplingPolicy, seed: int) -> None:
        """A new text; returns at once."""
        ...

    def wait(self) -> None:
        """Until it has read the prompt."""
        ...

    def begin(self, gamma: int) -> None:
        """A block after all that was drafted and followed so far; returns at once."""
        ...

    def collect(self) -> PearlBlock:
        """Wait for the block begun last."""
        ...

    def follow(self, length: int, token: int) -> None:
        """Of the text only the first `length` tokens stay; then comes this one. Returns at once."""
        ...


class PearlDecoder(ParallelDecoder):
    """Decodes one text at a time, with the distribution of the target under the policy.

    gamma: tokens of a block, >= 1; the protocol is best where drafting a block takes as long as
    verifying one. seed: of the draft's draws, which are independent of `chance` whatever its seed.
    """

    def __init__(
        self,
        target: TextRunner,
        draft: BlockSource,
        policy: SamplingPolicy,
        chance: RandomSource,
        *,
        gamma: int,
        seed: int,
    ) -> None:
        assert gamma >= 1
        super().__init__(target, draft, policy, chance)
        self._draft = draft
        self._gamma, self._seed = gamma, seed

    def _start(self, prompt: Tensor, max_new_tokens: int) -> None:
        """Two blocks may stand beyond the text when it ends."""
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
            self._draft.begin(self._gamma)
            started = time.perf_counter()
            block = prompt.new_tensor([[committed[-1], *pending.tokens]])
            p = self._policy.distribution(self._target.feed(block)[0])
            self._target.synchronize()
            self._busy += time.perf_counter() - started
            new = self._draft.collect()
            started = time.perf_counter()
            judged = PearlBlock(
                [*pending.tokens, new.tokens[0]],
                torch.cat([pending.q.to(p.device), new.q[:1].to(p.device)]),
            )
            check_finite("the target", p[:, 0])
            check_finite("the draft", judged.q[:, 0])
            emitted = _judge(p, judged, self._chance)
            is_whole = len(emitted) == len(judged.tokens) and emitted == judged.tokens
            accepted = len(emitted) if is_whole else len(emitted) - 1
            self._target.rollback(len(committed) + len(emitted) - 1)
            if is_whole:
                pending = PearlBlock(new.tokens[1:], new.q[1:])
            else:
                pending = PearlBlock([], new.q[:0])
                self._draft.follow(len(committed) + accepted, emitted[-1])
            room = limit - len(committed)
            tokens, is_finished = up_to_end(emitted[:room], eos_token_ids)
            committed += tokens
            self._busy += time.perf_counter() - started
            last = TokenStatus.ACCEPTED if is_whole else TokenStatus.CORRECTED
            yield Round(
                tokens,
                ([TokenStatus.ACCEPTED] * (len(emitted) - 1) + [last])[: len(tokens)],
                RoundRecord(
                    drafted=len(judged.tokens),
                    accepted=accepted,
                    emitted=len(tokens),
                    draft_steps=self._gamma,
                    cut=len(tokens) < len(emitted) or room < self._gamma,
                ),
            )


def _judge(p: Tensor, judged: PearlBlock, chance: RandomSource) -> list[int]:
    """p [G, V] after the token before each -> the tokens kept, and a correction unless all are."""
    drafted = torch.tensor(judged.tokens, device=p.device).unsqueeze(1)
    ratio = (p.gather(1, drafted) / judged.q.gather(1, drafted)).squeeze(1)
    coins: list[bool] = chance.accept(ratio).tolist()
    if all(coins):
        return list(judged.tokens)
    kept = coins.index(False)
    return [*judged.tokens[:kept], int(chance.draw(residual(p[kept], judged.q[kept])))]


class PearlProcess:
    """A draft in a process of its own that makes blocks; their q come through shared memory.

    make: picklable, makes the draft's runner there. gamma: tokens of the longest block.
    """

    def __init__(
        self,
        make: Callable[[], Runner],
        *,
        gamma: int,
        vocab_size: int,
        threads: int | None = None,
        hang_seconds: float = 15.0,
    ) -> None:
        self._q = torch.zeros(gamma, vocab_size).share_memory_()
        self._number = 0  # of the message that was answered last, or will be
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
        """Of the shared q."""
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
            pass  # something of an earlier text, which nobody waited for

    def begin(self, gamma: int) -> None:
        self._process.check()
        self._number += 1
        self._process.send(MakeBlock(self._number, gamma))

    def collect(self) -> PearlBlock:
        number, tokens = self._process.answer()
        while number != self._number:
            number, tokens = self._process.answer()
        return PearlBlock(
            tokens, self._q[: len(tokens)].clone()
        )  # the next block is written over it

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
    """The draft's side. q: [G, V] of float32, into which the distribution of every drawn token is
    written.

    chance: default: a generator made from the seed of the text.
    """

    def __init__(
        self, make: Callable[[], Runner], q: Tensor, chance: RandomSource | None = None
    ) -> None:
        self._runner = make()
        self._q = q
        self._given = chance
        self._text: list[int] = []
        self._policy = SamplingPolicy()
        self._chance: RandomSource = chance or _drafting_chance(0)  # each text brings its own

    @property
    def capacity(self) -> int:
        return longest_text(self._runner)

    def receive(self, message: Begin | MakeBlock | GoOn) -> tuple[int, list[int]] | None:
        match message:
            case Begin(number, prompt, policy, seed):
                self._text, self._policy = list(prompt), policy
                self._chance = self._given or _drafting_chance(seed)
                self._runner.reset()
                if len(prompt) > 1:
                    self._runner.feed(torch.tensor([prompt[:-1]]))
                return number, []
            case MakeBlock(number, gamma):
                return number, [self._next(place) for place in range(gamma)]
            case GoOn(length, token):
                self._text[length:] = [token]
                self._runner.rollback(min(length, self._runner.length))
        return None

    def work(self) -> bool:
        return False

    def _next(self, place: int) -> int:
        """What is drawn is drawn from the q that is written, in the precision it is written in."""
        logits = self._runner.feed(torch.tensor([self._text[self._runner.length :]]))[0, -1]
        self._q[place] = self._policy.distribution(logits)
        token = int(self._chance.draw(self._q[place]))
        self._text.append(token)
        return token


def _drafting_chance(seed: int) -> RandomSource:
    """The target may be given the same seed: its coins must not know what the draft has drawn."""
    return GeneratorSource(torch.Generator().manual_seed(derive_seed(seed, "draft of PEARL")))

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.speculation.decoding.engine import AutoregressiveDecoder
from distillspec.speculation.parallel import pearl
from distillspec.speculation.parallel.pearl import (
    Begin,
    BlockWorker,
    GoOn,
    MakeBlock,
    PearlBlock,
    PearlDecoder,
    PearlProcess,
)
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.records import TokenStatus
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import (
    HistoryRunner,
    Law,
    autoregressive_distribution,
    distribution_of,
    mutant,
    total_variation,
)

from .two_processes import V as BIG
from .two_processes import is_alive, make_draft, make_target, random_table

PROMPT = (0, 1)
EXACT = 1e-9
V = 3


class Inline:
    """A `BlockSource` in this process, with one random source for draft and target."""

    capacity = 64
    busy_seconds = 0.0

    def __init__(self, random_source: RandomSource, *, gamma: int, seed: int = 1) -> None:
        q = torch.zeros(gamma, V, dtype=torch.float64)
        self._worker = BlockWorker(lambda: HistoryRunner(random_table(V, seed)), q, random_source)
        self._q = q
        self._tokens: list[int] = []

    def start(self, prompt: Sequence[int], policy: SamplingPolicy, seed: int) -> None:
        self._worker.receive(Begin(0, list(prompt), policy, seed))

    def wait(self) -> None:
        """It has read the prompt already."""

    def begin(self, gamma: int) -> None:
        made = self._worker.receive(MakeBlock(0, gamma))
        assert made is not None
        self._tokens = made[1]

    def collect(self) -> PearlBlock:
        return PearlBlock(self._tokens, self._q[: len(self._tokens)].clone())

    def follow(self, length: int, token: int) -> None:
        self._worker.receive(GoOn(length, token))


def distribution_of_pearl(
    gamma: int, policy: SamplingPolicy, length: int, end: frozenset[int] = frozenset()
) -> Law:
    def run(random_source: RandomSource) -> list[int]:
        decoder = PearlDecoder(
            HistoryRunner(random_table(V, 0)),
            Inline(random_source, gamma=gamma),
            policy,
            random_source,
            gamma=gamma,
            seed=0,
        )
        return decoder.decode(torch.tensor(PROMPT), max_new_tokens=length, eos_token_ids=end).tokens

    return distribution_of(run)


def distance(
    gamma: int, policy: SamplingPolicy, length: int, end: frozenset[int] = frozenset()
) -> float:
    distribution = distribution_of_pearl(gamma, policy, length, end)
    assert sum(distribution.values()) == pytest.approx(1.0, abs=1e-12)
    wanted = autoregressive_distribution(
        HistoryRunner(random_table(V, 0)), policy, PROMPT, length, end
    )
    return total_variation(distribution, wanted)


@pytest.mark.parametrize(
    ("gamma", "length"), [(1, 3), (2, 3), (3, 2)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_whole_outputs_have_the_distribution_of_the_target(
    gamma: int, length: int, temperature: float
) -> None:
    assert distance(gamma, SamplingPolicy(temperature), length) < EXACT


def test_end_tokens_and_filters_keep_the_distribution() -> None:
    assert distance(2, SamplingPolicy(1.3, top_k=2), 3, frozenset({2})) < EXACT


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("residual(_1, _2)", "_1"),
        ("_1.gather(1, _2) / _3.gather(1, _2)", "_3.gather(1, _2) / _3.gather(1, _2)"),
    ],
    ids=["the residual", "the ratio"],
)
def test_a_broken_rule_is_seen(line: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pearl, "_verify", mutant(pearl._verify, line, broken))
    assert distance(2, SamplingPolicy(1.0), 2) > 0.01


def test_a_draft_that_agrees_is_one_block_ahead_all_the_time() -> None:
    """The first round verifies one token, each later one a full block; no bonus, no correction."""
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    decoder = PearlDecoder(
        HistoryRunner(random_table(V, 1)),
        Inline(random_source, gamma=3),
        SamplingPolicy(1.0),
        random_source,
        gamma=3,
        seed=0,
    )
    generation = decoder.decode(torch.tensor(PROMPT), max_new_tokens=13)
    assert [record.emitted for record in generation.rounds] == [1, 3, 3, 3, 3]
    assert generation.statuses == [TokenStatus.ACCEPTED] * 13


def test_after_a_correction_a_single_token_is_verified() -> None:
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    decoder = PearlDecoder(
        HistoryRunner(random_table(V, 0)),
        Inline(random_source, gamma=3),
        SamplingPolicy(1.0),
        random_source,
        gamma=3,
        seed=0,
    )
    rounds = list(decoder.rounds(torch.tensor(PROMPT), max_new_tokens=30))
    for before, after in pairwise(rounds):
        wanted = 1 if before.statuses[-1] is TokenStatus.CORRECTED else 3
        assert after.record.drafted == wanted
    assert {emitted.record.drafted for emitted in rounds} == {1, 3}


def test_a_text_whose_blocks_would_not_fit_is_refused_at_once() -> None:
    random_source = GeneratorSource(torch.Generator())
    decoder = PearlDecoder(
        HistoryRunner(random_table(V, 0), capacity=20),
        Inline(random_source, gamma=3),
        SamplingPolicy(1.0),
        random_source,
        gamma=3,
        seed=0,
    )
    assert len(decoder.decode(torch.tensor(PROMPT), max_new_tokens=13).tokens) == 13
    with pytest.raises(DistillSpecError, match="needs room for 21 tokens"):
        decoder.decode(torch.tensor(PROMPT), max_new_tokens=14)


# --- two processes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def draft() -> Iterator[PearlProcess]:
    made = PearlProcess(make_draft, gamma=4, vocab_size=BIG, threads=1)
    yield made
    made.close()


def decoder(draft: PearlProcess, temperature: float) -> PearlDecoder:
    return PearlDecoder(
        make_target(),
        draft,
        SamplingPolicy(temperature),
        GeneratorSource(torch.Generator().manual_seed(0)),
        gamma=4,
        seed=5,
    )


def test_two_processes_decode_what_the_target_alone_does(draft: PearlProcess) -> None:
    prompt = torch.tensor([1, 2, 3])
    plain = AutoregressiveDecoder(
        make_target(), SamplingPolicy(0.0), GeneratorSource(torch.Generator())
    )
    wanted = plain.decode(prompt, max_new_tokens=60).tokens
    for _ in range(2):
        generation = decoder(draft, 0.0).decode(prompt, max_new_tokens=60)
        assert generation.tokens == wanted
    assert generation.counts().accepted > 0
    assert draft.bytes == 4 * 4 * BIG


def test_a_seed_makes_a_text_again_and_both_sides_work_at_once(draft: PearlProcess) -> None:
    """Blocks of four at 2 ms take 8 ms, a forward of the target takes 10."""
    first, second = (
        decoder(draft, 1.0).decode(torch.tensor([1, 2, 3]), max_new_tokens=60) for _ in range(2)
    )
    assert first.tokens == second.tokens
    assert first.busy is not None
    assert first.busy.target_seconds + first.busy.draft_seconds > first.decode_seconds


def test_a_draft_that_dies_ends_in_seconds_with_an_error() -> None:
    made = PearlProcess(make_draft, gamma=4, vocab_size=BIG, threads=1)
    rounds = decoder(made, 1.0).rounds(torch.tensor([1, 2, 3]), max_new_tokens=3000)
    next(rounds)
    os.kill(made.pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(DistillSpecError, match="was killed by signal 9"):
        list(rounds)
    assert time.monotonic() - started < 5.0
    assert not is_alive(made.pid)


class Sampled(Inline):
    """The draft's source is made from the seed, as in its own process."""

    def __init__(self, table: torch.Tensor) -> None:
        self._q = torch.zeros(1, len(table))
        self._worker = BlockWorker(lambda: BigramRunner(table), self._q)
        self._tokens: list[int] = []


def test_one_seed_for_both_sides_gives_two_independent_streams() -> None:
    """A source that knew the draft's draws would never emit token 1 here: 2000 seeds, p = 1/32."""
    p, q = torch.tensor([1 / 32, 1 / 32, 30 / 32]), torch.tensor([0.5, 0.5, 1e-9])
    target, draft = (row.log().expand(3, 3).contiguous() for row in (p, q))
    counts = [0, 0, 0]
    for seed in range(2000):
        decoder = PearlDecoder(
            BigramRunner(target),
            Sampled(draft),
            SamplingPolicy(1.0),
            GeneratorSource(torch.Generator().manual_seed(seed)),
            gamma=1,
            seed=seed,
        )
        counts[decoder.decode(torch.tensor([0]), max_new_tokens=1).tokens[0]] += 1
    for count, wanted in zip(counts, p.tolist(), strict=True):
        assert abs(count - 2000 * wanted) < 4.5 * (2000 * wanted) ** 0.5

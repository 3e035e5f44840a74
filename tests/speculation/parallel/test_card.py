from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.speculation.decoding.engine import AutoregressiveDecoder
from distillspec.speculation.parallel.card import CardDecoder, CardProcess
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.records import TokenStatus
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import (
    HistoryRunner,
    Law,
    autoregressive_distribution,
    distribution_of,
    total_variation,
)

from .scheduled import LyingDraft, ScheduledDraft, prompt_schedule, random_schedule
from .two_processes import is_alive, make_draft, make_target, random_table

PROMPT = (0, 1)
EXACT = 1e-9
V = 3


def distribution_of_card(
    draft: Callable[[], ScheduledDraft],
    policy: SamplingPolicy,
    length: int,
    *,
    decoder: type[CardDecoder] = CardDecoder,
    eos_token_ids: frozenset[int] = frozenset(),
) -> Law:
    def run(random_source: RandomSource) -> list[int]:
        card = decoder(HistoryRunner(random_table(V, 0)), draft(), policy, random_source, longest=2)
        return card.decode(
            torch.tensor(PROMPT), max_new_tokens=length, eos_token_ids=eos_token_ids
        ).tokens

    return distribution_of(run)


def target_distribution(
    policy: SamplingPolicy, length: int, end: frozenset[int] = frozenset()
) -> Law:
    return autoregressive_distribution(
        HistoryRunner(random_table(V, 0)), policy, PROMPT, length, end
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_in_any_order_of_events_entire_outputs_have_the_distribution_of_the_target(
    seed: int, temperature: float
) -> None:
    policy = SamplingPolicy(temperature)
    distribution = distribution_of_card(
        lambda: ScheduledDraft(random_table(V, 1), random_schedule(seed)), policy, 3
    )
    assert sum(distribution.values()) == pytest.approx(1.0, abs=1e-12)
    assert total_variation(distribution, target_distribution(policy, 3)) < EXACT


def test_an_end_token_ends_the_text_wherever_the_round_stands() -> None:
    policy, end = SamplingPolicy(1.0), frozenset({2})
    draft = partial(ScheduledDraft, random_table(V, 0), prompt_schedule)
    distribution = distribution_of_card(draft, policy, 3, eos_token_ids=end)
    assert total_variation(distribution, target_distribution(policy, 3, end)) < EXACT


@pytest.mark.parametrize("seed", range(8))
def test_candidates_that_are_plain_lies_cannot_change_the_distribution(seed: int) -> None:
    policy = SamplingPolicy(1.0)
    distribution = distribution_of_card(lambda: LyingDraft(random_table(V, 1), seed), policy, 3)
    assert total_variation(distribution, target_distribution(policy, 3)) < EXACT


class Biased(CardDecoder):
    """Known wrong: the most probable candidate is accepted with min(1, p/q), as if drawn from q.

    The candidates' q here is the draft's own distribution, which is as good as the rule could get.
    """

    def _drawn(self, block: Tensor) -> list[int]:
        drawn = super()._drawn(block)
        path = block[0, 1:].tolist()
        text = torch.tensor([[*PROMPT[:-1], *block[0].tolist()]])
        if path and self._target.length == len(PROMPT) + len(path):  # the first round
            p = self._policy.distribution(HistoryRunner(random_table(V, 0)).feed(text))[0]
            q = self._policy.distribution(HistoryRunner(random_table(V, 1)).feed(text))[0]
            for position, token in enumerate(path, start=len(PROMPT) - 1):
                ratio = (p[position, token] / q[position, token]).view(1)
                if not bool(self._random_source.accept(ratio)):
                    left = (p[position] - q[position]).clamp(min=0.0)
                    drawn[position - 1] = int(self._random_source.draw(left))
                    break
                drawn[position - 1] = token
        return drawn


def test_accepting_the_most_probable_candidate_as_if_it_were_drawn_fails() -> None:
    policy = SamplingPolicy(1.0)
    draft = partial(ScheduledDraft, random_table(V, 1), prompt_schedule)
    distribution = distribution_of_card(draft, policy, 2, decoder=Biased)
    assert total_variation(distribution, target_distribution(policy, 2)) > 0.01


def test_a_draft_that_keeps_up_and_agrees_is_fully_accepted() -> None:
    """Each round emits and records the entire path and one more token."""
    card = CardDecoder(
        HistoryRunner(random_table(V, 0)),
        ScheduledDraft(random_table(V, 0), lambda text: ["hear", "grow", "grow", "grow"]),
        SamplingPolicy(0.0),
        GeneratorSource(torch.Generator()),
        longest=2,
    )
    generation = card.decode(torch.tensor(PROMPT), max_new_tokens=12)
    assert [record.accepted for record in generation.rounds] == [2] * 4
    assert (
        generation.statuses == [TokenStatus.ACCEPTED, TokenStatus.ACCEPTED, TokenStatus.BONUS] * 4
    )
    assert generation.counts().block_efficiency() == 3.0
    assert sum(record.draft_steps for record in generation.rounds) > 0


def test_a_draft_that_shows_nothing_in_time_leaves_plain_decoding() -> None:
    card = CardDecoder(
        HistoryRunner(random_table(V, 0)),
        ScheduledDraft(random_table(V, 0), lambda text: []),
        SamplingPolicy(0.0),
        GeneratorSource(torch.Generator()),
        longest=2,
    )
    generation = card.decode(torch.tensor(PROMPT), max_new_tokens=5)
    assert generation.statuses == [TokenStatus.PLAIN] * 5


def test_candidates_after_an_older_text_are_used_where_the_text_goes_on_in_them() -> None:
    """Four layers are grown before the first query, and no message is ever heard."""
    schedules = iter([["grow"] * 4, [], []])
    card = CardDecoder(
        HistoryRunner(random_table(V, 0)),
        ScheduledDraft(random_table(V, 0), lambda text: next(schedules), depth=4),
        SamplingPolicy(0.0),
        GeneratorSource(torch.Generator()),
        longest=1,
    )
    generation = card.decode(torch.tensor(PROMPT), max_new_tokens=5)
    assert [record.accepted for record in generation.rounds] == [1, 1, 0]


# --- two processes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def draft() -> Iterator[CardProcess]:
    made = CardProcess(make_draft, width=4, depth=6, threads=1, hang_seconds=10.0)
    yield made
    made.close()


def decoder(draft: CardProcess, temperature: float, *, seed: int = 0) -> CardDecoder:
    return CardDecoder(
        make_target(),
        draft,
        SamplingPolicy(temperature),
        GeneratorSource(torch.Generator().manual_seed(seed)),
        longest=4,
    )


def test_two_processes_decode_what_the_target_alone_does(draft: CardProcess) -> None:
    prompt = torch.tensor([1, 2, 3])
    plain = AutoregressiveDecoder(
        make_target(),
        SamplingPolicy(0.0),
        GeneratorSource(torch.Generator()),
    )
    wanted = plain.decode(prompt, max_new_tokens=60).tokens
    for _ in range(2):  # the second request finds nothing of the first one
        generation = decoder(draft, 0.0).decode(prompt, max_new_tokens=60)
        assert generation.tokens == wanted
    assert generation.counts().accepted > 0
    assert draft.pid != os.getpid()


def test_both_sides_are_busy_at_the_same_time(draft: CardProcess) -> None:
    generation = decoder(draft, 1.0).decode(torch.tensor([1, 2, 3]), max_new_tokens=60)
    assert generation.busy is not None
    assert (
        generation.busy.target_seconds + generation.busy.draft_seconds > generation.decode_seconds
    )
    assert generation.busy.target_seconds <= generation.decode_seconds


def test_the_shared_candidates_are_bounded_and_their_bytes_known(draft: CardProcess) -> None:
    assert draft.bytes == 8 * (4 + 2 * 4 * 6) + 8 * 4 * 6


def test_it_does_nothing_between_two_texts(draft: CardProcess) -> None:
    decoder(draft, 0.0).decode(torch.tensor([1]), max_new_tokens=3)
    time.sleep(0.3)
    before = draft.busy_seconds
    time.sleep(0.3)
    assert draft.busy_seconds == before


@pytest.mark.parametrize(
    ("blow", "message"),
    [(signal.SIGKILL, "was killed by signal 9"), (signal.SIGSTOP, "no sign of life")],
    ids=["killed", "hung"],
)
def test_a_draft_that_dies_or_hangs_ends_in_seconds_with_an_error(
    blow: signal.Signals, message: str
) -> None:
    made = CardProcess(make_draft, width=4, depth=6, threads=1, hang_seconds=2.0)
    rounds = decoder(made, 1.0).rounds(torch.tensor([1, 2, 3]), max_new_tokens=3000)
    next(rounds)
    os.kill(made.pid, blow)
    started = time.monotonic()
    with pytest.raises(DistillSpecError, match=message):
        list(rounds)
    assert time.monotonic() - started < 8.0
    assert not is_alive(made.pid)


def test_a_draft_that_is_stopped_while_it_holds_the_candidates_is_missed_too() -> None:
    made = CardProcess(make_draft, width=4, depth=6, threads=1, hang_seconds=1.0)
    rounds = decoder(made, 1.0).rounds(torch.tensor([1, 2, 3]), max_new_tokens=3000)
    next(rounds)
    made._buffer._lock.acquire()  # as the draft does when it copies
    os.kill(made.pid, signal.SIGSTOP)
    with pytest.raises(DistillSpecError, match="no sign of life"):
        list(rounds)
    assert not is_alive(made.pid)


STOPPED = """
import os, signal, sys
from tests.speculation.parallel.two_processes import make_draft
from distillspec.speculation.parallel.card import CardProcess
if __name__ == "__main__":
    draft = CardProcess(make_draft, width=4, depth=6, threads=1)
    print(draft.pid, flush=True)
    os.kill(draft.pid, signal.SIGSTOP)
"""


def test_a_target_that_ends_does_not_wait_for_a_stopped_draft(tmp_path: Path) -> None:
    """The interpreter waits for its children; a stopped one takes no signal but SIGKILL."""
    script = tmp_path / "decode.py"
    script.write_text(STOPPED)
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    assert not is_alive(int(ended.stdout))


def failing(error: type[Exception], words: str) -> Runner:
    raise error(words)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(failing, MemoryError, ""), "ran out of memory"),
        (partial(failing, RuntimeError, "can't allocate memory: 9 GB"), "ran out of memory"),
        (partial(failing, ValueError, "no such model"), "ValueError: no such model"),
    ],
    ids=["memory", "torch's memory", "anything"],
)
def test_a_draft_that_cannot_start_raises_the_reason(
    make: Callable[[], Runner], message: str
) -> None:
    with pytest.raises(DistillSpecError, match=message):
        CardProcess(make, width=4, depth=6)


SCRIPT = """
import sys, torch
from tests.speculation.parallel.test_card import decoder
from tests.speculation.parallel.two_processes import make_draft
from distillspec.speculation.parallel.card import CardProcess
if __name__ == "__main__":
    draft = CardProcess(make_draft, width=4, depth=6, threads=1)
    for one in decoder(draft, 1.0).rounds(torch.tensor([1, 2, 3]), max_new_tokens=4000):
        print(draft.pid, flush=True)
"""


def test_no_draft_outlives_its_target(tmp_path: Path) -> None:
    """SIGKILL leaves the target no time for goodbyes; shared memory goes with the two."""
    script = tmp_path / "decode.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert is_alive(pid)
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 5.0
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(pid)
    assert not [name for name in os.listdir("/dev/shm") if f"_{process.pid}_" in name]


def test_an_interrupt_is_for_the_target_alone(draft: CardProcess) -> None:
    """Ctrl-C reaches every process of a terminal; the draft's end is the target's to decide."""
    os.kill(draft.pid, signal.SIGINT)
    time.sleep(0.1)
    assert len(decoder(draft, 0.0).decode(torch.tensor([1]), max_new_tokens=5).tokens) == 5


def test_a_text_that_was_broken_off_leaves_nothing_to_the_next_one(draft: CardProcess) -> None:
    prompt = torch.tensor([1, 2, 3])
    wanted = decoder(draft, 0.0).decode(prompt, max_new_tokens=30)

    class Failing(BigramRunner):
        def feed(self, tokens: Tensor) -> Tensor:
            raise MemoryError

    broken = CardDecoder(
        Failing(random_table(50, 7), capacity=4096),
        draft,
        SamplingPolicy(0.0),
        GeneratorSource(torch.Generator()),
        longest=4,
    )
    with pytest.raises(MemoryError):  # after the message to begin, before the wait
        broken.decode(prompt, max_new_tokens=5)
    left = decoder(draft, 1.0).rounds(prompt, max_new_tokens=3000)
    next(left)
    again = decoder(draft, 0.0).rounds(prompt, max_new_tokens=30)
    first = next(again)
    left.close()  # it ends a text that is over: the new one goes on
    rounds = [first, *again]
    assert [token for emitted in rounds for token in emitted.tokens] == wanted.tokens
    assert sum(emitted.record.accepted for emitted in rounds) > 0
    assert all(emitted.record.draft_steps >= 0 for emitted in rounds)

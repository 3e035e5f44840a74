from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillspec.speculation.parallel.ahead import AheadDraft
from distillspec.speculation.parallel.candidates import Candidates
from distillspec.speculation.parallel.card import CardDecoder
from distillspec.speculation.parallel.pearl import BlockWorker, PearlDecoder
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.records import Round
from distillspec.speculation.sampling import SamplingPolicy
from eval.bench.virtual_time import (
    Cost,
    TextTarget,
    TimedTarget,
    VirtualBlocks,
    VirtualClock,
    VirtualDraft,
)
from tests.speculation.bigram import BigramRunner

V = 8
PROMPT = torch.tensor([0, 1])


def cycle(step: int) -> Tensor:
    """A draft that is sure of token + step."""
    table = torch.zeros(V, V)
    table[torch.arange(V), (torch.arange(V) + step) % V] = 9.0
    return table


def counting_text(length: int) -> Tensor:
    return torch.arange(length) % V


class Race:
    """A text decoded in virtual time; a target's forward takes 1 for any block."""

    def __init__(
        self, *, draft: Tensor, c: float, width: int = 1, depth: int = 4, verify: Cost = lambda n: 1
    ) -> None:
        self.clock = VirtualClock()
        self.draft = VirtualDraft(
            AheadDraft(BigramRunner(draft), Candidates(width, depth)),
            SamplingPolicy(0.0),
            self.clock,
            lambda size: c,
        )
        self.decoder = CardDecoder(
            TextTarget(counting_text(60), V, self.clock, verify),
            self.draft,
            SamplingPolicy(0.0),
            GeneratorSource(torch.Generator()),
            longest=3,
        )

    def rounds(self, tokens: int) -> list[Round]:
        found = list(self.decoder.rounds(PROMPT, max_new_tokens=tokens))
        assert [t for one in found for t in one.tokens] == counting_text(60)[
            2 : 2 + tokens
        ].tolist()
        return found


def test_a_useless_draft_leaves_one_token_a_forward() -> None:
    race = Race(draft=cycle(2), c=0.1)
    assert [one.record.emitted for one in race.rounds(6)] == [1] * 6
    assert race.clock.now == 1 + 6  # the prompt and six forwards


def test_a_perfect_draft_four_times_as_fast_is_always_ahead() -> None:
    """After the first forward, in which it makes four layers, three tokens and a bonus a round."""
    race = Race(draft=cycle(1), c=0.25, depth=8)
    assert [one.record.emitted for one in race.rounds(17)] == [1, 4, 4, 4, 4]


def test_a_perfect_draft_as_slow_as_the_target_never_has_anything_to_show() -> None:
    """What it finds out about a token comes when the target has just said it."""
    race = Race(draft=cycle(1), c=1.01)
    assert [one.record.emitted for one in race.rounds(5)] == [1] * 5


def test_a_step_that_ends_too_late_is_not_seen_and_one_that_ends_in_time_is() -> None:
    in_time = Race(draft=cycle(1), c=0.5).rounds(4)
    assert in_time[1].record.drafted == 1  # two layers, of which one became text
    too_late = Race(draft=cycle(1), c=0.51).rounds(4)
    assert too_late[1].record.drafted == 0


def test_a_longer_block_costs_what_it_is_said_to_cost() -> None:
    race = Race(draft=cycle(1), c=0.1, depth=8, verify=lambda n: 1.0 + 0.1 * (n - 1))
    rounds = race.rounds(9)
    assert [one.record.emitted for one in rounds] == [1, 4, 4]
    assert race.clock.now == pytest.approx(1 + 1 + 1.3 + 1.3)


def test_a_full_tree_waits_and_goes_on_with_the_next_message() -> None:
    """Two layers: one becomes text, the other is the path, and with it the tree is used up."""
    race = Race(draft=cycle(1), c=0.01, depth=2)
    assert [one.record.emitted for one in race.rounds(9)] == [1, 2, 1, 2, 1, 2]
    assert race.draft.busy_seconds == pytest.approx(0.01 * (2 + 1) * 3, abs=0.011)


@pytest.mark.parametrize(("c", "seconds"), [(0.25, 1 + 1 + 1 + 1), (0.5, 1 + 2 + 2 + 2)])
def test_a_block_is_waited_for_as_long_as_it_takes(c: float, seconds: float) -> None:
    """Nine tokens of a perfect draft, blocks of four: 1, 4 and 4; the prompt costs 1."""
    clock = VirtualClock()
    q = torch.zeros(4, V)
    worker = BlockWorker(lambda: BigramRunner(cycle(1)), q)
    decoder = PearlDecoder(
        TimedTarget(BigramRunner(cycle(1)), clock, lambda size: 1.0),
        VirtualBlocks(worker, q, clock, lambda size: c),
        SamplingPolicy(0.0),
        GeneratorSource(torch.Generator()),
        gamma=4,
        seed=0,
    )
    rounds = list(decoder.rounds(PROMPT, max_new_tokens=9))
    assert [one.record.emitted for one in rounds] == [1, 4, 4]
    assert clock.now == seconds

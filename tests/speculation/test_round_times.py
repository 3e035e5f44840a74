"""Times of rounds by hand: timed blocks, and what lies between them."""

from __future__ import annotations

import math

import pytest

from distillspec.speculation.round_times import BlockTime, RoundTimes

# The first step takes 0.3, each further one 0.1; blocks of 2 to 4 share a graph.
TIMES = RoundTimes(
    {
        1: BlockTime(1, 1, 0.3, 1.1),
        2: BlockTime(2, 2, 0.4, 1.4),
        4: BlockTime(4, 4, 0.6, 1.4),
    },
    unread=0.2,
)


def test_a_timed_block_takes_what_was_timed() -> None:
    assert TIMES.at(2) == pytest.approx(1.8)
    assert TIMES.at(2, whole=0.25) == pytest.approx(1.85)
    assert all(TIMES.between(n, n) == pytest.approx(TIMES.at(n)) for n in TIMES.blocks)


def test_between_two_blocks_times_are_linear() -> None:
    assert TIMES.between(3, 3) == pytest.approx(0.5 + 1.4)
    assert TIMES.between(1.5, 0.5) == pytest.approx(0.35 + 1.05)


def test_a_round_without_a_draft_is_a_step_of_the_target() -> None:
    assert TIMES.between(0, 0) == 1.0


def test_beyond_the_largest_block_time_goes_on_with_the_last_slope() -> None:
    step = TIMES.at(4) - TIMES.between(3, 3)
    assert step > 0.0
    assert TIMES.between(9, 9) == pytest.approx(TIMES.at(4) + 5 * step)
    assert RoundTimes({0: BlockTime(0, 0, 0.0, 1.5)}).between(0, 3) == 1.5


def test_no_rounds_have_no_time() -> None:
    assert math.isnan(TIMES.between(math.nan, math.nan))


def test_several_sequences_take_a_step_each_position_and_draft_more() -> None:
    rows = RoundTimes({2: BlockTime(2, 8, 0.5, 2.0)})
    assert rows.at(2) == pytest.approx(2.5)
    assert rows.between(1, 4) == pytest.approx(0.25 + 1.5)


def test_chains_by_their_two_ratios() -> None:
    chains = RoundTimes.of_chains(0.1, {2: 1.2, 4: 1.6})
    assert chains.at(4) == pytest.approx(2.0)
    assert chains.between(3, 3) == pytest.approx(1.7)

"""A race by hand: speeds that are known, a clock that is told what to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest

from distillspec.measure.race import FIRST_LOOK, Texts, race


class Course:
    """Ways of these seconds a prompt, each prompt harder than the one before for all of them."""

    def __init__(self, *seconds: float, noise: Sequence[float] = (0.0,)) -> None:
        self.asked: list[list[int]] = []
        self._seconds, self._noise = seconds, noise

    def __call__(self, prompt: int, among: Sequence[int]) -> Texts:
        self.asked.append(list(among))
        hard = 1.0 + 0.1 * prompt
        noise = self._noise[prompt % len(self._noise)]
        seconds = {way: hard * (self._seconds[way] + noise * way) for way in among}
        return Texts(tokens=10, plain_seconds=2.0 * hard, seconds=seconds)


def test_who_is_clearly_slower_leaves_at_the_first_look_and_the_last_one_wins() -> None:
    course = Course(1.0, 0.5, 0.8)
    outcome = race(course, ways=3, prompts=50, seconds=1e9, confidence=0.95)
    assert len(course.asked) == outcome.prompts == FIRST_LOOK
    assert outcome.why_it_ended == "one was left"
    assert [one.way for one in outcome.standings] == [1, 2, 0]
    assert [one.dropped for one in outcome.standings] == [False, True, True]
    best = outcome.standings[0]
    assert best.speedup.value == pytest.approx(4.0)
    assert best.relative.value == 0.0
    assert outcome.standings[2].relative.value == pytest.approx(-0.5)
    assert outcome.plain.value == pytest.approx(10 * 6 / (2.0 * sum(1 + 0.1 * i for i in range(6))))


def test_what_may_be_as_fast_stays_and_is_called_near() -> None:
    course = Course(0.5, 0.5, 1.0, noise=(0.1, -0.1))  # now one is ahead, now the other
    outcome = race(course, ways=3, prompts=14, seconds=1e9, confidence=0.95)
    assert [len(asked) for asked in course.asked] == [3] * 6 + [2] * 8
    assert outcome.why_it_ended == "all prompts were decoded"
    by_way = {one.way: one for one in outcome.standings}
    assert by_way[0].is_near
    assert by_way[1].is_near
    assert not by_way[2].is_near
    assert (by_way[0].prompts, by_way[2].prompts) == (14, 6)


def test_the_time_ends_a_race_but_not_before_two_prompts() -> None:
    for seconds, prompts in ((0.0, 2), (3.5, 5)):
        course = Course(0.5, 1.0)
        clock = map(float, count()).__next__  # a second at each look
        outcome = race(course, ways=2, prompts=50, seconds=seconds, confidence=0.95, clock=clock)
        assert outcome.prompts == len(course.asked) == prompts
        assert outcome.why_it_ended == "the time was used up"
        assert outcome.standings[0].way == 0
        assert not any(one.dropped for one in outcome.standings)


def test_one_way_alone_is_measured_on_all_prompts() -> None:
    outcome = race(Course(0.5), ways=1, prompts=8, seconds=1e9, confidence=0.95)
    assert (outcome.prompts, len(outcome.standings)) == (8, 1)


def test_a_slower_way_is_compared_on_the_prompts_that_both_decoded() -> None:
    outcome = race(
        Course(0.5, 0.5, 1.0, noise=(0.1, -0.1)), ways=3, prompts=12, seconds=1e9, confidence=0.95
    )
    slow = next(one for one in outcome.standings if one.way == 2)
    # of 6 prompts, each 1 + 0.1 i: the winner is way 0 (0.5) or 1 (0.5 +- 0.1), way 2 (1 +- 0.2)
    assert -0.55 < slow.relative.value < -0.45


def test_of_equals_hardly_one_is_dropped_and_none_is_told_from_the_winner() -> None:
    generator = np.random.default_rng(0)

    def decode(prompt: int, among: Sequence[int]) -> Texts:
        return Texts(10, 1.0, {way: float(generator.lognormal(0.0, 0.15)) for way in among})

    dropped = slower = gains = 0
    for _ in range(40):
        outcome = race(decode, ways=20, prompts=24, seconds=1e9, confidence=0.95)
        dropped += sum(one.dropped for one in outcome.standings)
        slower += sum(not one.is_near for one in outcome.standings)
        gains += outcome.standings[0].speedup.low > 1.0
    assert dropped < 0.01 * 40 * 20
    assert slower < 0.05 * 40 * 20
    assert gains <= 3


def test_of_few_prompts_no_interval_is_told_and_all_may_be_as_fast() -> None:
    outcome = race(Course(0.5, 0.6), ways=2, prompts=4, seconds=1e9, confidence=0.95)
    best, other = outcome.standings
    assert (best.way, best.speedup.value) == (0, pytest.approx(4.0))
    assert math.isnan(best.speedup.low)
    assert other.is_near

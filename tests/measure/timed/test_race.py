"""A race by hand: known speeds and a fake clock."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest

from distillspec.measure.timed.race import FIRST_LOOK, RaceOutcome, Texts, race, split, unseen


def raced(decode: object, prompts: int, *, ways: int, seconds: float = 1e9) -> RaceOutcome:
    """Each prompt has a separate document."""
    documents = [str(i) for i in range(prompts)]
    return race(decode, ways=ways, documents=documents, seconds=seconds, confidence=0.95)  # type: ignore[arg-type]


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
    outcome = raced(course, 30, ways=3)
    assert len(course.asked) == outcome.prompts == outcome.documents == FIRST_LOOK
    assert outcome.why_it_ended == "one way was left"
    assert [one.way for one in outcome.standings] == [1, 2, 0]
    assert [one.dropped for one in outcome.standings] == [False, True, True]
    best = outcome.standings[0]
    assert best.speedup.value == pytest.approx(4.0)
    assert best.relative.value == 0.0
    assert best.gain == "higher"
    assert outcome.standings[2].relative.value == pytest.approx(-0.5)
    hard = sum(1 + 0.1 * i for i in range(FIRST_LOOK))
    assert outcome.plain.value == pytest.approx(10 * FIRST_LOOK / (2.0 * hard))


def test_what_may_be_as_fast_stays_and_is_called_near() -> None:
    course = Course(0.5, 0.5, 1.0, noise=(0.1, -0.1))  # now one is ahead, now the other
    outcome = raced(course, 20, ways=3)
    assert [len(asked) for asked in course.asked] == [3] * 12 + [2] * 8
    assert outcome.why_it_ended == "all prompts were decoded"
    by_way = {one.way: one for one in outcome.standings}
    assert by_way[0].is_near
    assert by_way[1].is_near
    assert not by_way[2].is_near
    assert (by_way[0].prompts, by_way[2].prompts) == (20, 12)


def test_prompts_of_few_documents_drop_nobody() -> None:
    course = Course(1.0, 0.5)
    documents = [str(i % 6) for i in range(30)]
    outcome = race(course, ways=2, documents=documents, seconds=1e9, confidence=0.95)
    assert (outcome.prompts, outcome.documents) == (30, 6)
    assert not any(one.dropped for one in outcome.standings)
    assert outcome.standings[0].gain == "too few documents"


def test_a_way_is_kept_that_is_slower_by_less_than_unseen_texts_may_add() -> None:
    """Each time exactly so much slower: no noise, and yet 12 documents are too few."""
    margin = unseen(FIRST_LOOK)
    close, far = 1.0 / (1.0 - 0.9 * margin), 1.0 / (1.0 - 1.1 * margin)
    outcome = raced(Course(1.0, close, far), FIRST_LOOK, ways=3)
    assert [one.dropped for one in outcome.standings] == [False, False, True]
    assert unseen(24) == pytest.approx(unseen(12) / 2)


def test_the_winner_is_timed_alone_on_documents_that_it_was_not_picked_by() -> None:
    documents = [f"d{i % 60}" for i in range(120)]  # two prompts of each
    before, after = split(documents)
    assert len(after) == 20
    assert not {documents[i] for i in before} & {documents[i] for i in after}
    course = Course(0.5, 0.5, noise=(0.1, -0.1))
    outcome = race(course, ways=2, documents=documents, seconds=1e9, confidence=0.95)
    assert outcome.fresh == 20
    winner = outcome.standings[0].way
    assert course.asked[-20:] == [[winner]] * 20
    assert outcome.standings[0].documents == 20
    assert outcome.standings[1].documents == 40


def test_the_time_ends_a_race_but_not_before_two_prompts() -> None:
    for seconds, prompts in ((0.0, 2), (3.5, 5)):
        course = Course(0.5, 1.0)
        clock = map(float, count()).__next__  # a second at each look
        outcome = race(
            course,
            ways=2,
            documents=[str(i) for i in range(40)],
            seconds=seconds,
            confidence=0.95,
            clock=clock,
        )
        assert outcome.prompts == len(course.asked) == prompts
        assert outcome.why_it_ended == "the time was used up"
        assert outcome.standings[0].way == 0
        assert not any(one.dropped for one in outcome.standings)


def test_a_fifth_of_the_time_is_left_for_the_winner() -> None:
    clock = map(float, count()).__next__
    documents = [str(i) for i in range(90)]
    course = Course(0.5, 0.6, noise=(0.1, -0.1))
    outcome = race(course, ways=2, documents=documents, seconds=20.0, confidence=0.95, clock=clock)
    assert outcome.why_it_ended == "the time was used up"
    assert 0 < len(course.asked) - outcome.prompts < outcome.prompts <= 18
    assert outcome.fresh == 0  # they were too few: the winner's speed is of the race
    assert outcome.standings[0].documents == outcome.documents


def test_one_way_alone_is_measured_on_all_prompts() -> None:
    outcome = raced(Course(0.5), 8, ways=1)
    assert (outcome.prompts, len(outcome.standings)) == (8, 1)


def test_a_slower_way_is_compared_on_the_prompts_that_both_decoded() -> None:
    outcome = raced(Course(0.5, 0.5, 1.0, noise=(0.1, -0.1)), 18, ways=3)
    slow = next(one for one in outcome.standings if one.way == 2)
    # of 12 prompts, each 1 + 0.1 i: the winner is way 0 (0.5) or 1 (0.5 +- 0.1), way 2 (1 +- 0.2)
    assert -0.55 < slow.relative.value < -0.45


def test_equal_ways_are_rarely_dropped_and_none_differs_from_the_winner() -> None:
    generator = np.random.default_rng(0)

    def decode(prompt: int, among: Sequence[int]) -> Texts:
        return Texts(10, 1.0, {way: float(generator.lognormal(0.0, 0.15)) for way in among})

    dropped = slower = gains = 0
    for _ in range(20):
        outcome = raced(decode, 24, ways=10)
        dropped += sum(one.dropped for one in outcome.standings)
        slower += sum(not one.is_near for one in outcome.standings)
        gains += outcome.standings[0].gain == "higher"
    assert dropped == 0
    assert slower < 0.05 * 20 * 10
    assert gains <= 3


def test_of_few_documents_nothing_is_claimed_and_all_may_be_as_fast() -> None:
    outcome = raced(Course(0.5, 0.6), 4, ways=2)
    best, other = outcome.standings
    assert (best.way, best.speedup.value) == (0, pytest.approx(4.0))
    assert best.gain == "too few documents"
    assert not other.dropped

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from distillspec.speculation.choose.chooser import Reward, RoundOutcome
from distillspec.speculation.choose.fallback import FallbackChooser
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.choose.per_prompt import PerPrompt
from distillspec.speculation.choose.ucb import UCB
from tests.speculation.decoding.test_engine import standard

BASELINE, ADAPTIVE = standard(2), standard(8)
TOKENS = 3


def run(
    fallback: FallbackChooser, rounds: int, seconds: Callable[[bool, int], float]
) -> list[bool]:
    """Which rounds the adaptive way decoded; seconds(is_adaptive, round) is what a round takes."""
    chosen = []
    for number in range(rounds):
        is_adaptive = fallback.choose() is ADAPTIVE
        chosen.append(is_adaptive)
        fallback.learn(RoundOutcome(TOKENS, seconds(is_adaptive, number)))
    return chosen


def fallback(**how: float) -> FallbackChooser:
    how = {"window": 10, "pause": 100, **how}
    return FallbackChooser(Fixed(ADAPTIVE), BASELINE, **how)  # type: ignore[arg-type]


def test_a_faster_way_decodes_but_for_the_rounds_that_time_the_baseline() -> None:
    chosen = run(fallback(), 1100, lambda adaptive, _: 0.8 if adaptive else 1.0)
    assert chosen[:10] == [False] * 10
    assert 0.88 < sum(chosen) / len(chosen) < 0.92


def test_a_slower_way_is_left_after_one_window_and_tried_again_after_the_pause() -> None:
    chosen = run(fallback(), 250, lambda adaptive, _: 1.2 if adaptive else 1.0)
    assert chosen == [
        *[False] * 10,
        *[True] * 10,
        *[False] * 100,
        *[True] * 10,
        *[False] * 100,
        *[True] * 10,
        *[False] * 10,
    ]


def test_within_the_margin_it_stays() -> None:
    assert sum(run(fallback(margin=0.2), 100, lambda adaptive, _: 1.2 if adaptive else 1.0)) == 90
    assert sum(run(fallback(margin=0.1), 100, lambda adaptive, _: 1.2 if adaptive else 1.0)) == 10


def test_on_traffic_that_changes_it_falls_back_and_returns() -> None:
    """Fast on the first domain, slow on the second, fast on the third."""

    def seconds(adaptive: bool, number: int) -> float:
        if not adaptive:
            return 1.0
        return 2.0 if 300 <= number < 600 else 0.7

    chosen = run(fallback(), 900, seconds)
    assert sum(chosen[100:300]) > 170
    assert sum(chosen[320:600]) < 40
    assert sum(chosen[720:]) > 140


def test_an_adaptive_way_that_changes_its_mind_is_left_and_taken_up_again_in_stated_time() -> None:
    """UCB behind the fallback, on three domains: its arms are fast, slow, fast again.

    It takes two windows at most to fall back; a pause and a window at most to return.
    """
    window, pause = 10, 100
    guarded = FallbackChooser(
        UCB([standard(4), ADAPTIVE], Reward(8, 10.0), scale=0.1, window=40),
        BASELINE,
        window=window,
        pause=pause,
    )
    fast = []
    for number in range(1500):
        arm = guarded.choose()
        fast.append(arm is not BASELINE)
        seconds = {2: 1.0, 4: 0.9, 8: 0.6}[arm.gamma]
        if arm is not BASELINE and 500 <= number < 1000:
            seconds = 2.0
        guarded.learn(RoundOutcome(TOKENS, seconds))
    assert sum(fast[100:500]) >= 0.85 * 400
    assert not any(fast[500 + 2 * window : 500 + pause])
    back = next(t for t in range(1000, 1500) if all(fast[t : t + 2 * window]))
    assert back - 1000 <= pause + window
    assert sum(fast[back:]) >= 0.85 * len(fast[back:])


def test_the_adaptive_chooser_learns_that_a_new_text_begins() -> None:
    made = []

    def make() -> Fixed:
        made.append(Fixed(ADAPTIVE))
        return made[-1]

    guarded = FallbackChooser(PerPrompt(make), BASELINE)
    guarded.begin()
    guarded.begin()
    assert len(made) == 3


def test_the_log_explains_why_it_falls_back(caplog: pytest.LogCaptureFixture) -> None:
    chooser = fallback()
    with caplog.at_level(logging.WARNING):
        run(chooser, 20, lambda adaptive, _: 2.0 if adaptive else 1.0)
    assert chooser.has_fallen_back
    (message,) = caplog.messages
    assert (
        message
        == "2 tokens/s over 10 rounds, below 3 of standard@2, which takes the next 100 rounds"
    )


def test_traffic_that_slows_both_ways_down_is_no_reason_to_fall_back_for_long() -> None:
    """The baseline's speed is of another time then; the next comparison is of the same."""

    def seconds(adaptive: bool, number: int) -> float:
        return (0.8 if adaptive else 1.0) * (3.0 if number >= 50 else 1.0)

    chosen = run(fallback(), 600, seconds)
    assert sum(chosen[200:]) > 340

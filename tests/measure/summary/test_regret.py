"""Regret by hand: two prompts, a chooser, two arms that were timed and one that was not."""

from __future__ import annotations

from typing import Any

import pytest

from distillspec.measure.summary.regret import Arm, regrets
from distillspec.measure.timed.rows import CellRow
from distillspec.speculation.records import Counts

CONFIDENCE = 0.95
ARMS = [Arm("standard", 2), Arm("standard", 4), Arm("spectr", 4)]


def a_row(prompt: int, method: str | None, gamma: int, rounds: int, **more: Any) -> CellRow:
    values: dict[str, Any] = {
        "prompt": prompt,
        "prompt_key": str(prompt),
        "temperature": 1.0,
        "draft": method and "distilled",
        "method": method,
        "gamma": gamma if method else None,
        "repeat": 0,
        "place": 0,
        "run": "r",
        "seconds": float(rounds),
        "prefill_seconds": 1.0,
        "tokens": [1] * 12,
        "fates": "p" * 12,
        "counts": Counts(target_forwards=rounds),
    }
    return CellRow(**{**values, **more})


ROWS = [
    a_row(0, None, 0, 12),
    a_row(0, "ucb", 4, 7),
    a_row(0, "standard", 4, 5, seconds=9.0),
    a_row(0, "standard", 2, 9, seconds=6.0),
    a_row(1, "standard", 2, 6, seconds=5.0),
    a_row(1, "standard", 4, 6, seconds=8.0),
    a_row(1, "ucb", 4, 5),
]


def test_regret_is_what_was_needed_beyond_the_best_arm_of_the_sequence() -> None:
    rounds, seconds = regrets(ROWS, {"ucb": ARMS}, CONFIDENCE)
    assert (rounds.quantity, rounds.best_arm) == ("rounds", "standard@4")
    assert (rounds.chosen, rounds.best, rounds.mean) == (12.0, 11.0, 13.0)
    assert rounds.regret == [2.0, 1.0]
    assert rounds.mean_regret == [2.0, 2.0]
    assert rounds.relative.value == pytest.approx(1 / 11)
    assert (seconds.quantity, seconds.best_arm) == ("seconds", "standard@2")
    assert seconds.regret == [1.0, 1.0]
    assert seconds.mean_regret == [1.5, 3.0]


def test_an_arm_that_is_no_cell_is_named_and_left_out() -> None:
    (rounds, _) = regrets(ROWS, {"ucb": ARMS}, CONFIDENCE)
    assert rounds.arms == ["standard@2", "standard@4"]
    assert rounds.untimed_arms == ["spectr@4"]
    assert regrets(ROWS, {"ucb": ARMS[2:]}, CONFIDENCE) == []


def test_an_arm_that_names_its_draft_was_timed_under_that_one() -> None:
    weak = [a_row(prompt, "weak", 4, 3, draft="undistilled") for prompt in (0, 1)]
    rounds, _ = regrets([*ROWS, *weak], {"ucb": [*ARMS, Arm("weak", 4, "undistilled")]}, CONFIDENCE)
    assert (rounds.draft, rounds.best_arm, rounds.best) == ("distilled", "weak@4", 6.0)
    assert rounds.untimed_arms == ["spectr@4"]


def test_repeats_of_a_prompt_count_as_their_mean() -> None:
    again = [*ROWS, a_row(1, "ucb", 4, 9, repeat=1)]
    rounds, _ = regrets(again, {"ucb": ARMS}, CONFIDENCE)
    assert rounds.regret == [2.0, 3.0]


def test_what_does_not_choose_has_no_regret() -> None:
    assert regrets(ROWS, {}, CONFIDENCE) == []


def test_temperatures_and_choosers_stand_in_order() -> None:
    cold = [
        a_row(0, method, gamma, 5, temperature=0.0)
        for method, gamma in (("exp3", 4), ("ucb", 4), ("standard", 2))
    ]
    found = regrets([*ROWS, *cold], {"ucb": ARMS, "exp3": ARMS}, CONFIDENCE)
    assert [(one.temperature, one.method) for one in found[::2]] == [
        (0.0, "ucb"),
        (0.0, "exp3"),
        (1.0, "ucb"),
    ]

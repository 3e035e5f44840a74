"""Drafts against each other, by hand, from two prompts."""

from __future__ import annotations

import pytest

from distillspec.measure.comparing import comparisons
from distillspec.measure.tally import Tally
from tests.measure.two_prompts import FACTS, HOW, STEPS, a_row, counts, rows


def test_comparisons_are_paired_and_say_what_is_shown(tally: Tally) -> None:
    found = {one.quantity: one for one in comparisons(tally, "distilled", ["undistilled"])}
    assert found["tau"].value == pytest.approx(2.5)
    assert found["tau"].against_value == pytest.approx(18 / 10)
    assert found["tau"].difference == pytest.approx(0.7)
    assert found["tau"].relative == pytest.approx(2.5 / 1.8 - 1)
    assert found["tau"].verdict == "higher"
    assert found["alpha"].difference == pytest.approx(0.15)
    assert (found["alpha"].gamma, found["alpha"].method) == (None, None)
    # 1 token in 1 round, and 2 (kept, corrected) + 3 (kept, kept, bonus: cut off, so not counted)
    assert found["expected tau"].against_value == pytest.approx((1 + 2 + 3) / 3)
    assert (found["expected tau"].gamma, found["expected tau"].method) == (2, None)
    assert found["speed"].relative == pytest.approx(10 / 6 - 1)


def test_the_reverse_comparison_has_the_opposite_verdict(tally: Tally) -> None:
    (tau,) = [
        one for one in comparisons(tally, "undistilled", ["distilled"]) if one.quantity == "tau"
    ]
    assert tau.difference == pytest.approx(-0.7)
    assert tau.verdict == "lower"


def test_a_difference_that_prompts_disagree_about_is_not_shown() -> None:
    mixed = [*rows()[:-1], a_row(1, "distilled", 9.0, counts(8, (3, 1)))]
    tally = Tally(mixed, {("standard", 1.0): STEPS}, {1.0: FACTS}, HOW, frozenset())
    verdicts = {
        one.quantity: one.verdict for one in comparisons(tally, "distilled", ["undistilled"])
    }
    assert verdicts["tau"] == verdicts["speed"] == "no difference shown"

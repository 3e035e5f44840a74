"""Drafts against each other, by hand, from two prompts and their copies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distillspec.measure.summary.comparing import comparisons
from distillspec.measure.summary.tally import Tally
from tests.measure.two_prompts import CONFIDENCE, STEPS, a_row, copied, copied_facts, counts, rows

STATED = {1.0: ("standard", 2)}


@pytest.fixture
def ten_documents() -> Tally:
    steps = {("standard", 1.0): STEPS}
    return Tally(copied(rows()), steps, {1.0: copied_facts()}, CONFIDENCE, frozenset())


def test_comparisons_are_paired_and_say_what_is_shown(ten_documents: Tally) -> None:
    found = {
        one.quantity: one
        for one in comparisons(ten_documents, "distilled", ["undistilled"], STATED)
    }
    assert found["tau"].value == pytest.approx(2.5)
    assert found["tau"].against_value == pytest.approx(18 / 10)
    assert found["tau"].difference.value == pytest.approx(0.7)
    assert found["tau"].relative.value == pytest.approx(2.5 / 1.8 - 1)
    assert found["tau"].verdict == "higher"
    assert (found["tau"].prompts, found["tau"].documents) == (10, 10)
    assert found["alpha"].difference.value == pytest.approx(0.15)
    assert (found["alpha"].gamma, found["alpha"].method) == (None, None)
    # 1 token in 1 round, and 2 (kept, corrected) + 3 (kept, kept, bonus: cut off, so not counted)
    assert found["expected tau"].against_value == pytest.approx((1 + 2 + 3) / 3)
    assert (found["expected tau"].gamma, found["expected tau"].method) == (2, None)
    assert found["speed"].relative.value == pytest.approx(10 / 6 - 1)


def test_the_reverse_comparison_has_the_opposite_verdict(ten_documents: Tally) -> None:
    found = comparisons(ten_documents, "undistilled", ["distilled"], STATED)
    (tau,) = [one for one in found if one.quantity == "tau"]
    assert tau.difference.value == pytest.approx(-0.7)
    assert tau.verdict == "lower"


def test_two_documents_are_too_few_for_a_verdict_and_have_intervals(tally: Tally) -> None:
    for one in comparisons(tally, "distilled", ["undistilled"], STATED):
        assert one.verdict == "too few documents"
        assert one.difference.low <= one.difference.value <= one.difference.high


def test_prompts_of_two_documents_are_two_units_however_many_they_are() -> None:
    of_two = [replace(row, document=f"{row.prompt % 2}") for row in copied(rows())]
    tally = Tally(
        of_two, {("standard", 1.0): STEPS}, {1.0: copied_facts()}, CONFIDENCE, frozenset()
    )
    found = {one.quantity: one for one in comparisons(tally, "distilled", ["undistilled"], STATED)}
    assert (found["tau"].prompts, found["tau"].documents) == (10, 2)
    assert found["tau"].verdict == "too few documents"
    assert found["alpha"].documents == 10


def test_a_verdict_is_given_at_the_stated_gamma_alone(ten_documents: Tally) -> None:
    for gamma in (2, 4):
        stated = {1.0: ("standard", gamma)}
        found = comparisons(ten_documents, "distilled", ["undistilled"], stated)
        tested = {one.quantity for one in found if one.verdict != "not tested"}
        assert tested == ({"alpha", "expected tau", "tau", "speed"} if gamma == 2 else {"alpha"})


def test_a_difference_that_documents_disagree_about_is_not_shown() -> None:
    mixed = copied([*rows()[:-1], a_row(1, "distilled", 9.0, counts(8, (3, 1)))])
    steps = {("standard", 1.0): STEPS}
    tally = Tally(mixed, steps, {1.0: copied_facts()}, CONFIDENCE, frozenset())
    verdicts = {
        one.quantity: one.verdict
        for one in comparisons(tally, "distilled", ["undistilled"], STATED)
    }
    assert verdicts["tau"] == verdicts["speed"] == "no difference shown"

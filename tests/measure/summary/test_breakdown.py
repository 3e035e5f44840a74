"""By category and by context, by hand; few prompts only give counts."""

from __future__ import annotations

import math

import pytest

from distillspec.measure.stats.intervals import Sums
from distillspec.measure.summary.breakdown import FEW, UNNAMED, by_category, by_context
from distillspec.measure.summary.cells import CellKey
from distillspec.measure.timed.rows import CellRow, DraftedAt
from distillspec.speculation.records import Counts

CONFIDENCE = 0.95
KEY = CellKey("distilled", "standard", 4, 1.0)


def a_row(*rounds: tuple[int, int, int]) -> CellRow:
    return CellRow(
        prompt=0,
        prompt_key="p",
        temperature=1.0,
        draft="distilled",
        method="standard",
        gamma=4,
        repeat=0,
        place=0,
        run="r",
        seconds=1.0,
        prefill_seconds=0.0,
        tokens=[],
        fates="",
        counts=Counts(),
        rounds=[DraftedAt(*one) for one in rounds],
    )


def documents(prompts: int) -> list[str]:
    return [str(i) for i in range(prompts)]


def test_the_counts_of_the_categories_add_up_to_those_of_the_cell() -> None:
    categories = ["a"] * 6 + ["b"] * 5 + [None] * 2
    accepted = Sums([float(i) for i in range(13)], [20.0] * 13)
    tau = Sums([float(i + 10) for i in range(13)], [10.0] * 13)
    speedup = Sums([4.0] * 6 + [6.0] * 7, [2.0] * 13)
    a, b, none = by_category(KEY, categories, documents(13), (accepted, tau, speedup), CONFIDENCE)
    assert [one.category for one in (a, b, none)] == ["a", "b", UNNAMED]
    assert a.key == KEY
    assert [one.prompts for one in (a, b, none)] == [6, 5, 2]
    assert (a.accepted, a.drafted, a.emitted, a.verifications) == (15, 120, 75, 60)
    assert sum(one.accepted for one in (a, b, none)) == sum(range(13))
    assert a.draft_acceptance.value == pytest.approx(15 / 120)
    assert a.tau.value == pytest.approx(75 / 60)
    assert (a.speedup.value, b.speedup.value) == (pytest.approx(2.0), pytest.approx(3.0))
    assert a.draft_acceptance.low < a.draft_acceptance.value < a.draft_acceptance.high < b.tau.low
    # Seconds are the same for all prompts of a category: nothing to be unsure of.
    assert b.speedup.low == b.speedup.high == pytest.approx(3.0)


def test_a_category_with_few_prompts_has_counts_but_no_rates() -> None:
    some = Sums([1.0] * (2 * FEW - 1), [2.0] * (2 * FEW - 1))
    names = ["many"] * FEW + ["few"] * (FEW - 1)
    many, few = by_category(KEY, names, documents(2 * FEW - 1), (some, some, some), CONFIDENCE)
    assert (few.prompts, few.accepted, few.drafted) == (FEW - 1, FEW - 1, 2 * FEW - 2)
    rates = (*few.draft_acceptance, *few.tau, *few.speedup)
    assert all(math.isnan(rate) for rate in rates)
    assert many.tau.value == pytest.approx(0.5)


def test_prompts_of_one_category_or_of_none_are_not_broken_down() -> None:
    one = Sums([1.0] * 6, [2.0] * 6)
    for names in (["a"] * 6, [None] * 6):
        assert by_category(KEY, names, documents(6), (one, one, one), CONFIDENCE) == []


def test_prompts_of_one_document_are_one_unit_of_each_category() -> None:
    names = ["a", "b"] * FEW
    sums = Sums([float(i) for i in range(2 * FEW)], [10.0] * (2 * FEW))
    alone = by_category(KEY, names, documents(2 * FEW), (sums, sums, sums), CONFIDENCE)
    shared = [str(i // 4) for i in range(2 * FEW)]  # two prompts of each category in a document
    together = by_category(KEY, names, shared, (sums, sums, sums), CONFIDENCE)
    for one, other in zip(alone, together, strict=True):
        assert one.tau.value == pytest.approx(other.tau.value)
        assert other.tau.high / other.tau.low > one.tau.high / one.tau.low


def test_rounds_fall_into_the_power_of_two_below_their_context() -> None:
    rows = {i: [a_row((63, 4, 1), (64, 4, 2), (127, 4, 3)), a_row((128, 2, 2))] for i in range(FEW)}
    rows[0].append(a_row((300, 4, 4), (299, 0, 0)))
    bins = by_context(KEY, rows, CONFIDENCE)
    assert [(b.from_tokens, b.to_tokens) for b in bins] == [
        (32, 64),
        (64, 128),
        (128, 256),
        (256, 512),
    ]
    assert [(b.accepted, b.drafted) for b in bins] == [
        (FEW, 4 * FEW),
        (5 * FEW, 8 * FEW),
        (2 * FEW, 2 * FEW),
        (4, 4),
    ]
    assert [b.rounds for b in bins] == [FEW, 2 * FEW, FEW, 1]
    assert bins[1].draft_acceptance.value == pytest.approx(5 / 8)
    assert (bins[3].prompts, math.isnan(bins[3].draft_acceptance.value)) == (1, True)


def test_rows_that_never_drafted_have_no_bins() -> None:
    assert by_context(KEY, {0: [a_row(), a_row((5, 0, 0))]}, CONFIDENCE) == []

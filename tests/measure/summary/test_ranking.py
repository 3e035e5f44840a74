"""Methods by speed, by hand, from two prompts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from distillspec.measure.summary.ranking import per_token, ranking
from distillspec.measure.summary.tally import Tally
from distillspec.speculation.records import Counts
from tests.measure.two_prompts import (
    CONFIDENCE,
    FACTS,
    STEPS,
    a_row,
    copied,
    copied_facts,
    counts,
    rows,
)


def ranked_with(seconds: float, **busy: float) -> Tally:
    """The standard method and another whose texts take this long each."""
    block = [replace(row, method="block", seconds=seconds, **busy) for row in rows()[4:]]
    steps = {("standard", 1.0): STEPS, ("block", 1.0): STEPS}
    return Tally([*rows(), *block], steps, {1.0: FACTS}, CONFIDENCE, frozenset())


def test_one_method_alone_is_not_ranked(tally: Tally) -> None:
    assert ranking(tally) == []


def test_the_fastest_comes_first_and_the_others_are_relative_to_it() -> None:
    found = ranking(ranked_with(1.0))
    places = [(one.draft, one.method) for one in found]
    # 24 tokens in 2, 2, 6 and 10 seconds; of equals, the cell that comes first.
    assert places[2:] == [("distilled", "standard"), ("undistilled", "standard")]
    assert {method for _, method in places[:2]} == {"block"}
    assert [one.tokens_per_second for one in found] == pytest.approx([12, 12, 4, 2.4])
    assert [one.relative.value for one in found] == pytest.approx([0, 0, 4 / 12 - 1, 2.4 / 12 - 1])
    # Two documents are too few to call any of them slower.
    assert [one.verdict for one in found] == ["fastest", *["too few documents"] * 3]


def test_the_cost_of_a_method_is_per_emitted_token() -> None:
    one = next(one for one in ranking(ranked_with(1.0)) if one.draft == "distilled")
    assert one.tau == pytest.approx(25 / 10)
    assert one.drafted_per_token == pytest.approx(20 / 25)
    assert one.wasted_per_token == pytest.approx(5 / 25)
    assert one.forwards_per_token == pytest.approx(10 / 25)
    assert math.isnan(per_token(3, Counts()))


def test_sides_are_busy_for_a_share_of_the_time_where_both_work_at_once() -> None:
    found = ranking(ranked_with(2.0, target_busy_seconds=1.5, draft_busy_seconds=0.5))
    busy = {one.method: (one.target_busy, one.draft_busy) for one in found}
    assert busy["block"] == pytest.approx((0.75, 0.25))
    assert all(map(math.isnan, busy["standard"]))


def test_a_method_is_called_slower_only_if_its_upper_bound_is() -> None:
    """Twice as slow on all documents; and faster on one half, slower on the other."""
    standard = [a_row(i, "distilled", 2.0, counts(5, (3, 1))) for i in (0, 1)]
    slow = [replace(row, method="slow", seconds=4.0) for row in standard]
    mixed = [
        replace(row, method="mixed", seconds=s) for row, s in zip(standard, (1.5, 2.9), strict=True)
    ]
    plain = [row for row in rows() if row.draft is None]
    steps = {(name, 1.0): STEPS for name in ("standard", "slow", "mixed")}
    tally = Tally(
        copied([*plain, *standard, *slow, *mixed]),
        steps,
        {1.0: copied_facts()},
        CONFIDENCE,
        frozenset(),
    )
    found = {one.method: one.verdict for one in ranking(tally)}
    assert found == {
        "standard": "fastest",
        "mixed": "within noise of it",
        "slow": "slower",
    }

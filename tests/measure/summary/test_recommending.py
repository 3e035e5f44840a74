"""The gamma that is recommended, by hand, from two prompts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from distillspec.measure.summary.recommending import recommendations, recommended
from distillspec.measure.summary.tally import Tally
from tests.measure.two_prompts import (
    CONFIDENCE,
    FACTS,
    STEP_SECONDS,
    STEPS,
    a_row,
    copied,
    copied_facts,
    counts,
    rows,
)
from tests.methods.chain_times import chain_times


def test_the_recommendation_is_the_fastest_gamma_in_words() -> None:
    slow = [a_row(i, "distilled", 30.0, counts(5, (4, 2)), gamma=4) for i in (0, 1)]
    steps = chain_times(1.0, 0.01, {2: 0.012, 4: 0.014}, STEP_SECONDS)
    tally = Tally(
        copied([*rows(), *slow]),
        {("standard", 1.0): steps},
        {1.0: copied_facts()},
        CONFIDENCE,
        frozenset(),
    )
    found = {(one.draft, one.temperature): one for one in recommendations(tally)}
    best = found["distilled", 1.0]
    assert (best.gamma, best.speedup.value) == (2, pytest.approx(2.0))
    assert best.words.startswith("gamma 2: 2.00x")
    assert found["distilled", None].speedup == best.speedup
    assert (found["undistilled", 1.0].gamma, found["undistilled", None].gamma) == (2, 2)


def test_a_gamma_that_may_be_as_fast_is_named_and_the_winner_is_not_its_own_rival() -> None:
    like = [row for row in rows() if row.draft == "distilled"]
    other = [replace(row, gamma=4, seconds=(0.8, 1.3)[row.prompt] * row.seconds) for row in like]
    steps = chain_times(1.0, 0.01, {2: 0.012, 4: 0.014}, STEP_SECONDS)
    tally = Tally(
        copied([*rows(), *other]),
        {("standard", 1.0): steps},
        {1.0: copied_facts()},
        CONFIDENCE,
        frozenset(),
    )
    found = {(one.draft, one.temperature): one for one in recommendations(tally)}
    assert found["distilled", 1.0].gamma == 2
    assert found["distilled", 1.0].words.endswith("; within noise of it: gamma 4")
    assert "within noise" not in found["undistilled", 1.0].words


def test_one_document_has_no_interval() -> None:
    mine = [row for row in rows() if row.prompt == 0]
    tally = Tally(mine, {("standard", 1.0): STEPS}, {1.0: FACTS}, CONFIDENCE, frozenset())
    for one in recommendations(tally):
        assert re.search(r"gamma 2: \d\.\d\dx \[no interval\]; 1 documents are too few", one.words)


def test_a_draft_that_only_costs_is_not_recommended() -> None:
    slow = [a_row(i, "distilled", 30.0, counts(5, (1, 0))) for i in (0, 1)]
    tally = Tally(
        copied(rows()[:4] + slow),
        {("standard", 1.0): STEPS},
        {1.0: copied_facts()},
        CONFIDENCE,
        frozenset(),
    )
    assert all(r.words.startswith("do not speculate") for r in recommendations(tally))


def test_a_gain_the_interval_does_not_show_is_called_that() -> None:
    unsure = [
        a_row(0, "distilled", 2.0, counts(5, (4, 2))),
        a_row(1, "distilled", 9.0, counts(5, (4, 2))),
    ]
    tally = Tally(
        copied(rows()[:4] + unsure),
        {("standard", 1.0): STEPS},
        {1.0: copied_facts()},
        CONFIDENCE,
        frozenset(),
    )
    assert all(r.words.startswith("no gain shown") for r in recommendations(tally))


def test_two_documents_give_numbers_and_no_verdict(tally: Tally) -> None:
    assert all(
        r.words.endswith("2 documents are too few for a verdict") for r in recommendations(tally)
    )


def test_what_a_report_states_is_the_fastest_gamma_of_the_standard_method() -> None:
    mine = [row for row in rows() if row.draft == "distilled"]
    slow = [replace(row, gamma=4, seconds=3 * row.seconds) for row in mine]
    other = [replace(row, method="adaedl", seconds=0.5 * row.seconds) for row in mine]
    steps = chain_times(1.0, 0.01, {2: 0.012, 4: 0.014}, STEP_SECONDS)
    by_method = {("standard", 1.0): steps, ("adaedl", 1.0): steps}
    facts = {1.0: copied_facts()}
    tally = Tally(copied([*rows(), *slow, *other]), by_method, facts, CONFIDENCE, frozenset())
    assert recommended(tally, "distilled") == {1.0: ("standard", 2)}
    assert recommended(tally, "nobody") == {}

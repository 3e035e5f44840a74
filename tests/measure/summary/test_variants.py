from __future__ import annotations

import json

import pytest

from distillspec.measure.stats.intervals import Sums
from distillspec.measure.summary.variants import (
    MeasuredVariant,
    VariantCost,
    VariantReading,
    markdown,
    standings,
    tables,
)
from distillspec.runtime.typed import typed
from tests.measure.missing import NO_NUMBER

CONFIDENCE = 0.95
COST = VariantCost(10, 1000, {"rollout": 2.0, "target": 1.0, "update": 4.0}, 30.0)


def measured(tau: float, cost: VariantCost | None = COST) -> MeasuredVariant:
    texts = [2.0, 3.0, 4.0, 5.0] * 2
    reading = VariantReading(Sums([tau * n for n in texts], texts), Sums([0.5] * 8, [1.0] * 8))
    return MeasuredVariant({"held-out": reading}, cost)


RUNS = {
    "first": [measured(2.0), measured(2.0)],
    "better": [measured(2.41), measured(2.39)],
    "unsure": [measured(2.5), measured(1.7)],
    "undistilled": [measured(1.5, None)],
}


def test_variants_are_ranked_by_tau_and_compared_with_the_baseline() -> None:
    found = standings(RUNS, "first", "held-out", CONFIDENCE)
    assert [one.variant for one in found] == ["better", "unsure", "first", "undistilled"]
    better, unsure, first, undistilled = found
    assert better.tau.value == pytest.approx(2.4)
    assert better.tau_of_runs == pytest.approx([2.41, 2.39])
    assert better.relative.value == pytest.approx(0.2)
    assert (better.verdict, unsure.verdict) == ("higher", "no difference shown")
    assert (first.verdict, undistilled.verdict) == ("not tested", "lower")
    assert first.relative.value == 0.0
    assert undistilled.seconds == {}
    assert better.seconds == {"text": 30.0, "rollout": 2.0, "target": 1.0, "update": 4.0}


def test_tables_say_what_is_no_difference_and_what_cost_what() -> None:
    text = markdown(standings(RUNS, "first", "held-out", CONFIDENCE), "first", 0.95)
    head, rule, better, unsure, first, undistilled = text.splitlines()
    assert head.count("|") == rule.count("|") == better.count("|")
    assert "| +20.0% [+1" in better and "none shown" not in better
    assert unsure.count(": none shown |") == 1
    assert "30 / 2 / 1 / 4" in better
    assert "| 0.500 [0.500, 0.500] |" in better  # alpha, which is the same of every text
    assert "|  |" in first  # nothing to compare the baseline with
    assert undistilled.endswith("| – | – |")
    same = {"first": RUNS["first"], "same": [measured(2.0)]}
    assert "none shown" in markdown(standings(same, "first", "held-out", CONFIDENCE), "first", 0.95)
    for table in tables("title", standings(RUNS, "first", "held-out", CONFIDENCE), "first", 0.95):
        assert table.row_count == 4


@pytest.mark.parametrize("alpha", [[0.5], [0.0]])
def test_one_document_has_no_interval_and_no_token_no_alpha(alpha: list[float]) -> None:
    """Two runs, as comparisons have them; the texts of one document, or none that were read."""
    tokens = [1.0 if alpha[0] else 0.0]
    reading = VariantReading(Sums([2.0], [1.0]), Sums(alpha, tokens))
    runs = {"first": [MeasuredVariant({"held-out": reading}, None)] * 2}
    text = markdown(standings(runs, "first", "held-out", CONFIDENCE), "first", CONFIDENCE)
    assert "2.000 [no interval]" in text
    assert ("0.500 [no interval]" if alpha[0] else "| not measured |") in text
    assert not NO_NUMBER.search(text)


def test_a_reading_comes_back_from_json() -> None:
    reading = measured(2.0).readings["held-out"]
    assert typed(VariantReading, json.loads(json.dumps(reading.as_json()))) == reading

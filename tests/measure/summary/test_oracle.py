"""The oracle's rounds, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distillspec.measure.summary.oracle import oracles, shortened
from distillspec.measure.summary.ranking import ranking
from distillspec.measure.summary.tally import Tally
from distillspec.speculation.records import Counts, RoundRecord
from distillspec.speculation.round_times import RoundTimes
from tests.measure.two_prompts import CONFIDENCE, FACTS, STEP_SECONDS, STEPS, rows
from tests.methods.chain_times import chain_times

TIMES = RoundTimes.of_chains(0.1, {2: 1.2, 4: 1.6})


def rounds(*accepted: int, gamma: int = 4) -> Counts:
    return Counts.of(RoundRecord(gamma, a, a + 1, gamma, cut=False) for a in accepted)


def test_each_round_costs_what_it_kept() -> None:
    # kept 0: a plain step. 2: timed. 3: between 2 and 4. 4: nothing was wasted.
    cut = 1.0 + (0.2 + 1.2) + (0.3 + 1.4) + (0.4 + 1.6)
    assert shortened(rounds(0, 2, 3, 4), 4, TIMES) == pytest.approx(cut / (4 * (0.4 + 1.6)))


def test_below_the_smallest_block_that_was_timed_a_plain_step_is_the_neighbour() -> None:
    free = RoundTimes.of_chains(0.0, {2: 1.2, 4: 1.6})
    assert shortened(rounds(1), 4, free) == pytest.approx(1.1 / 1.6)


def test_where_all_is_kept_there_is_nothing_to_gain() -> None:
    assert shortened(rounds(4, 4), 4, TIMES) == pytest.approx(1.0)


def test_cut_rounds_and_texts_without_a_complete_round_count_nothing() -> None:
    cut = RoundRecord(4, 4, 2, 4, cut=True)
    whole = RoundRecord(4, 1, 2, 4, cut=False)
    assert shortened(Counts.of([cut]), 4, TIMES) == 1.0
    assert shortened(Counts.of([cut, whole]), 4, TIMES) == shortened(rounds(1), 4, TIMES)


def test_no_fixed_length_beats_the_oracle_on_the_same_rounds() -> None:
    kept = (0, 1, 2, 3, 4, 4, 1, 0)
    times = RoundTimes.of_chains(0.1, {1: 1.1, 2: 1.2, 3: 1.4, 4: 1.6})
    seconds = shortened(rounds(*kept), 4, times) * len(kept) * times.at(4)
    oracle = sum(a + 1 for a in kept) / seconds
    for gamma in times.blocks:  # cut to gamma, a round keeps the first of what it kept
        tokens = sum(min(a, gamma) + 1 for a in kept)
        assert tokens / (len(kept) * times.at(gamma)) < oracle


def test_the_oracle_is_read_from_chains_where_methods_are_ranked(tally: Tally) -> None:
    assert oracles(tally, ranking(tally)) == []  # one method: nothing is ranked
    block = [replace(row, method="block", seconds=3.0) for row in rows()[4:]]
    steps = {("standard", 1.0): STEPS, ("block", 1.0): STEPS}
    ranked = Tally([*rows(), *block], steps, {1.0: FACTS}, CONFIDENCE, frozenset())
    by_draft = {one.draft: one for one in oracles(ranked, ranking(ranked))}
    assert by_draft.keys() == {"undistilled", "distilled"}
    one = by_draft["distilled"]
    assert (one.method, one.gamma, one.temperature) == ("standard", 2, 1.0)
    # Of 5 rounds each: kept 0, 1, 2 tokens in 1, 2, 2 rounds, and in 0, 1, 4; v(1) = 1.1.
    first = (1 * 1.0 + 2 * (0.2 + 1.1) + 2 * 1.6) / (5 * 1.6)
    second = (1 * (0.2 + 1.1) + 4 * 1.6) / (5 * 1.6)
    assert one.tokens_per_second == pytest.approx(24 / (2.0 * first + 4.0 * second))
    assert one.drafted_per_token == pytest.approx(15 / 25)
    assert one.forwards_per_token == pytest.approx(10 / 25)
    fastest = max(place.tokens_per_second for place in ranking(ranked))
    assert one.relative.value == pytest.approx(one.tokens_per_second / fastest - 1.0)


def test_the_oracle_is_read_from_the_longest_chains() -> None:
    both = [replace(row, gamma=4) for row in rows()[4:]]
    block = [replace(row, method="block") for row in rows()[4:]]
    steps = chain_times(1.0, 0.01, {2: 0.012, 4: 0.014}, STEP_SECONDS)
    by_method = {("standard", 1.0): steps, ("block", 1.0): steps}
    tally = Tally([*rows(), *both, *block], by_method, {1.0: FACTS}, CONFIDENCE, frozenset())
    assert {one.gamma for one in oracles(tally, ranking(tally))} == {4}

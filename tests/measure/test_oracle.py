"""The oracle's rounds, counted by hand."""

from __future__ import annotations

import pytest

from distillspec.measure.oracle import shortened
from distillspec.speculation.records import Counts, RoundRecord

V = {2: 1.2, 4: 1.6}


def rounds(*accepted: int, gamma: int = 4) -> Counts:
    return Counts.of(RoundRecord(gamma, a, a + 1, gamma, cut=False) for a in accepted)


def test_each_round_costs_what_it_kept() -> None:
    # kept 0: a plain step. 2: timed. 3: between 2 and 4. 4: nothing was wasted.
    cut = 1.0 + (0.2 + 1.2) + (0.3 + 1.4) + (0.4 + 1.6)
    assert shortened(rounds(0, 2, 3, 4), 4, 0.1, V) == pytest.approx(cut / (4 * (0.4 + 1.6)))


def test_below_the_smallest_block_that_was_timed_a_plain_step_is_the_neighbour() -> None:
    assert shortened(rounds(1), 4, 0.0, V) == pytest.approx(1.1 / 1.6)


def test_where_all_is_kept_there_is_nothing_to_gain() -> None:
    assert shortened(rounds(4, 4), 4, 0.3, V) == pytest.approx(1.0)


def test_rounds_that_were_cut_off_and_texts_without_a_whole_round_tell_nothing() -> None:
    cut = RoundRecord(4, 4, 2, 4, cut=True)
    whole = RoundRecord(4, 1, 2, 4, cut=False)
    assert shortened(Counts.of([cut]), 4, 0.1, V) == 1.0
    assert shortened(Counts.of([cut, whole]), 4, 0.1, V) == shortened(rounds(1), 4, 0.1, V)


def test_no_fixed_length_beats_the_oracle_on_the_same_rounds() -> None:
    kept = (0, 1, 2, 3, 4, 4, 1, 0)
    c, v = 0.1, {1: 1.1, 2: 1.2, 3: 1.4, 4: 1.6}
    seconds = shortened(rounds(*kept), 4, c, v) * len(kept) * (4 * c + v[4])
    oracle = sum(a + 1 for a in kept) / seconds
    for gamma in v:  # cut to gamma, a round keeps the first of what it kept
        tokens = sum(min(a, gamma) + 1 for a in kept)
        assert tokens / (len(kept) * (gamma * c + v[gamma])) < oracle

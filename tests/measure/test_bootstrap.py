"""Laws of the intervals: they hold the estimate, cover the truth, and respect pairing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distillspec.measure.bootstrap import (
    Resampling,
    Sums,
    difference,
    ratio,
    ratio_of_runs,
    relative,
    relative_of_runs,
)

HOW = Resampling(resamples=500, confidence=0.95, seed=3)


def test_the_ratio_is_the_sum_over_the_sum_not_a_mean_of_ratios() -> None:
    assert ratio(Sums([1, 9], [10, 10]), HOW).value == pytest.approx(0.5)
    assert ratio(Sums([1, 9], [1, 99]), HOW).value == pytest.approx(0.1)


def test_equal_prompts_give_an_interval_without_width() -> None:
    assert ratio(Sums([2, 2, 2], [1, 1, 1]), HOW) == (2.0, 2.0, 2.0)


def test_the_interval_holds_its_estimate_and_the_same_seed_gives_it_again() -> None:
    generator = np.random.default_rng(0)
    sums = Sums(generator.uniform(1, 5, 30).tolist(), generator.uniform(1, 2, 30).tolist())
    first = ratio(sums, HOW)
    assert first.low < first.value < first.high
    assert ratio(sums, HOW) == first
    assert ratio(sums, HOW._replace(seed=4)) != first


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    sums = Sums([1, 2, 3, 4, 5, 6], [1] * 6)
    narrow, wide = (ratio(sums, HOW._replace(confidence=c)) for c in (0.6, 0.99))
    assert wide.low < narrow.low and narrow.high < wide.high


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        values = generator.exponential(2.0, 40)
        interval = ratio(Sums(values.tolist(), [1.0] * 40), Resampling(resamples=400, seed=trial))
        held += interval.low <= 2.0 <= interval.high
    assert 0.88 <= held / 200 <= 0.99


def test_a_constant_gain_per_prompt_is_certain_although_prompts_differ_widely() -> None:
    hard = [1.0, 5.0, 20.0, 3.0, 11.0]
    ones = [1.0] * 5
    paired = difference(Sums([h + 1 for h in hard], ones), Sums(hard, ones), HOW)
    assert paired == pytest.approx((1.0, 1.0, 1.0))
    assert paired.excludes(0.0)


def test_a_draft_compared_with_itself_shows_no_difference() -> None:
    sums = Sums([3, 7, 5], [2, 4, 3])
    assert difference(sums, sums, HOW) == (0.0, 0.0, 0.0)
    assert not difference(sums, sums, HOW).excludes(0.0)
    assert relative(sums, sums, HOW) == (0.0, 0.0, 0.0)


def test_the_relative_difference_is_a_share_of_the_other_side() -> None:
    interval = relative(Sums([3.3, 6.6], [1, 2]), Sums([3, 6], [1, 2]), HOW)
    assert interval == pytest.approx((0.1, 0.1, 0.1))


def test_nothing_counted_is_nan_and_excludes_nothing() -> None:
    interval = ratio(Sums([0, 0], [0, 0]), HOW)
    assert all(math.isnan(number) for number in interval)
    assert not interval.excludes(0.0)


# --- several runs on the same prompts ------------------------------------------------------------


def runs_of(*levels: float, seed: int = 0) -> list[Sums]:
    hard = np.random.default_rng(seed).exponential(2.0, 30)
    return [Sums((hard * level).tolist(), [1.0] * 30) for level in levels]


def test_one_run_has_the_interval_of_its_prompts() -> None:
    (one,), (other,) = runs_of(1.0), runs_of(1.2)
    assert ratio_of_runs([one], HOW) == ratio(one, HOW)
    assert relative_of_runs([other], [one], HOW) == relative(other, one, HOW)


def test_runs_are_pooled_and_their_scatter_widens_the_interval() -> None:
    alike, apart = runs_of(1.0, 1.0), runs_of(0.5, 1.5)
    assert ratio_of_runs(apart, HOW).value == pytest.approx(ratio_of_runs(alike, HOW).value)
    calm, wild = (relative_of_runs(runs, runs_of(0.9), HOW) for runs in (alike, apart))
    assert calm.low == pytest.approx(calm.high)  # paired in the prompts
    assert wild.low < 0.0 < wild.high
    assert calm.excludes(0.0) and not wild.excludes(0.0)


def test_two_sides_draw_their_runs_by_themselves() -> None:
    """The runs of two variants with one seed are no pair: their scatter does not cancel."""
    runs = runs_of(0.5, 1.5)
    interval = relative_of_runs(runs, runs, HOW)
    assert interval.value == 0.0
    assert interval.low < -0.2 and interval.high > 0.2

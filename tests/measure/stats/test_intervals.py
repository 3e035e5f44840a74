"""Intervals by hand, by their properties, and by how often they and the verdicts are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from distillspec.measure.stats.intervals import (
    FEWEST,
    Sums,
    _degrees_of_scatter,
    by_document,
    difference,
    ratio,
    ratio_of_runs,
    relative,
    relative_of_runs,
    verdict_against,
    verdicts,
    verdicts_of_runs,
)


def test_prompts_of_one_document_are_one_unit() -> None:
    sums = Sums([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0])
    assert by_document(sums, ["b", "a", "b", "c"]) == Sums([4.0, 2.0, 4.0], [40.0, 20.0, 40.0])


def test_five_copies_of_each_prompt_tell_nothing_new() -> None:
    once = Sums([1.0, 3.0, 2.0, 5.0], [2.0, 4.0, 4.0, 7.0])
    copied = Sums(list(once.numerators) * 5, list(once.denominators) * 5)
    documents = [str(i % 4) for i in range(20)]
    assert ratio(by_document(copied, documents), 0.95) == pytest.approx(ratio(once, 0.95))
    assert ratio(copied, 0.95).low > ratio(once, 0.95).low  # as prompts they would seem to


def test_an_interval_by_hand() -> None:
    """Sums 2, 4 over 1, 1: without one document the ratio is 4 or 2, on average log sqrt(8)."""
    found = ratio(Sums([2, 4], [1, 1]), 0.95)
    scatter = 2 * math.log(math.sqrt(2)) ** 2
    reach = stats.t.ppf(0.975, 1) * math.sqrt(scatter)
    assert found.value == pytest.approx(3.0)
    assert found.low == pytest.approx(3.0 * math.exp(-reach))
    assert found.high == pytest.approx(3.0 * math.exp(reach))


def test_the_ratio_is_the_sum_over_the_sum_not_a_mean_of_ratios() -> None:
    assert ratio(Sums([1, 9], [10, 10]), 0.95).value == pytest.approx(0.5)
    assert ratio(Sums([1, 9], [1, 99]), 0.95).value == pytest.approx(0.1)


def test_equal_documents_give_an_interval_without_width() -> None:
    assert tuple(ratio(Sums([2, 2, 2], [1, 1, 1]), 0.95)) == pytest.approx((2.0, 2.0, 2.0))


def test_more_candidates_and_more_confidence_widen_it() -> None:
    sums = Sums([2, 4, 3], [1, 1, 1])
    one, many, sure = ratio(sums, 0.9), ratio(sums, 0.9, 20), ratio(sums, 0.99)
    for wide in (many, sure):
        assert wide.low < one.low < one.value == wide.value < one.high < wide.high


def test_a_few_large_documents_count_like_fewer() -> None:
    """The same scatter of the same ratios: of 12 equal documents, or mostly of 3 of them."""
    ratios, sizes = np.array([1.0, 1.2, 0.9] * 4), np.array([20.0] * 3 + [1.0] * 9)
    even = ratio(Sums(list(ratios), [1.0] * 12), 0.95)
    uneven = ratio(Sums(list(ratios * sizes), list(sizes)), 0.95)
    assert uneven.high / uneven.low > (even.high / even.low) ** 2


def test_documents_that_carry_the_scatter_leave_fewer_degrees_of_freedom() -> None:
    rng = np.random.default_rng(0)
    for n in (8, 12, 64):
        deviations = rng.standard_t(3, size=n)
        deviations -= deviations.mean()
        found = _degrees_of_scatter(deviations**2)
        heavy = 3.0 + float(stats.kurtosis(deviations, bias=False))  # G2
        assert found == pytest.approx(2 * n / (heavy - (n - 3) / (n - 1)))
    lone = np.array([[0.01] * 11 + [1.0], [0.1] * 12])
    few, light = _degrees_of_scatter(lone)
    assert few < 2.0 and np.isnan(light)  # tails lighter than normal are no limit
    assert np.isnan(_degrees_of_scatter(np.ones(3)))
    even, odd = Sums([9.0, 11.0] * 6, [10.0] * 12), Sums([10.0] * 11 + [13.0], [10.0] * 12)
    normal, heavy_tailed = (ratio(one, 0.95) for one in (even, odd))
    scatter = [np.std(np.log(one.numerators), ddof=1) for one in (even, odd)]
    widths = [math.log(one.high / one.low) for one in (normal, heavy_tailed)]
    assert widths[1] / widths[0] > 1.3 * scatter[1] / scatter[0]


def test_one_document_has_no_bounds_and_nothing_counted_no_value() -> None:
    alone = ratio(Sums([2], [1]), 0.95)
    assert alone.value == 2.0
    assert math.isnan(alone.low) and math.isnan(alone.high)
    for sums in (Sums([0.0, 0.0], [0.0, 0.0]), Sums([1.0], [0.0])):
        assert all(math.isnan(bound) for bound in ratio(sums, 0.95))
    in_one = ratio(Sums([0.0, 1.0, 0.0], [4.0, 4.0, 4.0]), 0.95)
    assert in_one.value == pytest.approx(1 / 12) and math.isnan(in_one.high)
    nothing_kept = ratio(Sums([0.0, 0.0, 0.0], [4.0, 4.0, 4.0]), 0.95)
    assert nothing_kept.value == 0.0 and math.isnan(nothing_kept.low)


def test_pairs_are_compared_document_by_document() -> None:
    hard = [1.0, 5.0, 20.0, 3.0, 11.0]
    ones = [1.0] * 5
    more = difference(Sums([h + 1 for h in hard], ones), Sums(hard, ones), 0.95)
    assert tuple(more) == pytest.approx((1.0, 1.0, 1.0))
    twice = relative(Sums([2 * h for h in hard], ones), Sums(hard, ones), 0.95)
    assert tuple(twice) == pytest.approx((1.0, 1.0, 1.0))
    assert tuple(relative(Sums(hard, ones), Sums(hard, ones), 0.95)) == (0.0, 0.0, 0.0)


def test_the_interval_of_a_bounded_quantity_stays_within_its_bounds() -> None:
    found = ratio(Sums([9.0, 10.0, 6.0], [10.0, 10.0, 10.0]), 0.95)
    assert found.high > 1.0
    assert found.within(0.0, 1.0) == (found.value, found.low, 1.0)


# --- several runs --------------------------------------------------------------------------------


def test_of_one_run_the_interval_is_that_of_its_documents() -> None:
    sums, base = Sums([1.0, 3.0, 2.0], [2.0, 4.0, 4.0]), Sums([1.0, 2.0, 3.0], [2.0, 4.0, 4.0])
    assert ratio_of_runs([sums], 0.95) == pytest.approx(ratio(sums, 0.95))
    assert relative_of_runs([sums], [base], 0.95) == pytest.approx(relative(sums, base, 0.95))


def test_runs_that_scatter_widen_the_interval_beyond_that_of_the_documents() -> None:
    of_documents = np.array([1.0, 1.1, 0.9, 1.05, 0.95])
    runs = [Sums(list(scale * of_documents), [1.0] * 5) for scale in (0.8, 1.0, 1.2)]
    together = ratio_of_runs(runs, 0.95)
    assert together.value == pytest.approx(1.0)
    spread = np.log([0.8, 1.0, 1.2]).std(ddof=1) / math.sqrt(3)
    assert together.high / together.value > math.exp(2 * spread)
    steady = ratio_of_runs([runs[1]] * 3, 0.95)
    assert steady == pytest.approx(ratio(runs[1], 0.95))


# --- verdicts ------------------------------------------------------------------------------------


def noisy(generator: np.random.Generator, documents: int, size: float) -> list[float]:
    return [float(one) for one in generator.lognormal(0.0, size, documents)]


def test_a_clear_difference_is_claimed_and_its_mirror_image_too() -> None:
    generator = np.random.default_rng(0)
    base = noisy(generator, 12, 0.5)
    more = [one * float(generator.lognormal(0.2, 0.05)) for one in base]
    one, other = Sums(more, [1.0] * 12), Sums(base, [1.0] * 12)
    assert verdicts([(one, other), (other, one), (one, one)], 0.95) == [
        "higher",
        "lower",
        "no difference shown",
    ]
    assert verdict_against(Sums(more, base), 1.0, 0.95) == "higher"
    assert verdict_against(Sums(more, base), 2.0, 0.95) == "lower"
    assert verdict_against(Sums(more, base), 0.0, 0.95) == "higher"
    assert verdict_against(Sums([0.0] * 12, base), 0.0, 0.95) == "no difference shown"
    assert verdict_against(Sums([0.0] * 12, base), 0.5, 0.95) == "no difference shown"
    assert verdicts_of_runs([([one, one], [other])], 0.95) == ["higher"]


def test_below_the_floor_nothing_is_claimed_however_clear_it_is() -> None:
    ones = [1.0] * (FEWEST - 1)
    twice, once = Sums([2.0 + 0.01 * i for i in range(FEWEST - 1)], ones), Sums(ones, ones)
    assert verdicts([(twice, once)], 0.95) == ["too few documents"]
    assert verdict_against(twice, 1.0, 0.95) == "too few documents"
    assert relative(twice, once, 0.95).low > 0.9


def test_holm_divides_the_level_by_the_claims_that_are_left() -> None:
    """p = .012 and .04: alone both are below .05; together .012 < .05 / 2, then .04 < .05 / 1."""

    def at(p: float) -> tuple[Sums, Sums]:
        """A pair whose paired p-value is p, of 9 documents of equal size."""
        noise = np.array([1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 0.0]) * 1e-4
        error = noise.std(ddof=1) / 3 * math.sqrt(9 / 8)
        shift = stats.t.isf(p / 2, 8) * error
        return Sums(list(1.0 + noise + shift), [1.0] * 9), Sums([1.0] * 9, [1.0] * 9)

    assert verdicts([at(0.04), at(0.012)], 0.95) == ["higher", "higher"]
    assert verdicts([at(0.04), at(0.03)], 0.95) == ["no difference shown"] * 2
    third = [at(0.04), at(0.012), at(0.5)]  # now .04 stands against .05 / 2
    assert verdicts(third, 0.95) == ["no difference shown", "higher", "no difference shown"]


@pytest.mark.parametrize("documents", [8, 24])
def test_of_equal_drafts_few_reports_have_a_false_verdict(documents: int) -> None:
    """16 claims of pairs that are the same but for noise; nominal 5 % of the reports."""
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        hard = noisy(generator, documents, 0.5)
        pairs = [
            tuple(
                Sums(
                    [h * n for h, n in zip(hard, noisy(generator, documents, 0.15), strict=True)],
                    hard,
                )
                for _ in "ab"
            )
            for _ in range(16)
        ]
        wrong += any(one != "no difference shown" for one in verdicts(pairs, 0.95))
    assert wrong <= 18  # binomial(200, .05) is beyond in 1 of 100


def test_intervals_of_few_skewed_documents_cover_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        hard = noisy(generator, 8, 0.5)
        interval = ratio(
            Sums([h * n for h, n in zip(hard, noisy(generator, 8, 0.5), strict=True)], hard), 0.95
        )
        held += interval.low <= math.exp(0.125) <= interval.high
    assert held >= 0.90 * 400

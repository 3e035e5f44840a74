"""Intervals for one of many: by hand, and by how often they are wrong where all are equal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from distillspec.measure import bootstrap
from distillspec.measure.bootstrap import Resampling, Sums
from distillspec.measure.simultaneous import ratio, relative


def test_an_interval_by_hand() -> None:
    """Sums 2, 4 over 1, 1: residuals of the logarithm are -1/3 and 1/3."""
    found = ratio(Sums([2, 4], [1, 1]), 0.95, 1)
    reach = stats.t.ppf(0.975, 1) * math.sqrt(2 / 9 / (2 * 1))
    assert found.value == pytest.approx(3.0)
    assert found.low == pytest.approx(3.0 * math.exp(-reach))
    assert found.high == pytest.approx(3.0 * math.exp(reach))


def test_a_pair_is_compared_prompt_by_prompt() -> None:
    one, other = Sums([4, 8, 12], [1, 2, 3]), Sums([2, 4, 6], [1, 2, 3])
    found = relative(one, other, 0.95, 1)
    assert tuple(found) == pytest.approx((1.0, 1.0, 1.0))
    assert tuple(relative(one, one, 0.95, 7)) == (0.0, 0.0, 0.0)


def test_more_comparisons_widen_it_and_one_prompt_has_no_bounds() -> None:
    sums = Sums([2, 4, 3], [1, 1, 1])
    one, many = ratio(sums, 0.95, 1), ratio(sums, 0.95, 20)
    assert many.low < one.low < one.value == many.value < one.high < many.high
    alone = ratio(Sums([2], [1]), 0.95, 1)
    assert alone.value == 2.0
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


@pytest.mark.parametrize("prompts", [6, 24])
def test_of_equal_cells_few_are_called_slower_than_the_luckiest(prompts: int) -> None:
    """20 cells that are the same but for noise: at 95 % each may be called slower 1 time in 40."""
    generator = np.random.default_rng(0)
    wrong = alone = 0
    for _ in range(200):
        hard = generator.uniform(0.5, 2.0, prompts)
        seconds = [hard * generator.lognormal(0.0, 0.15, prompts) for _ in range(20)]
        cells = [Sums([64.0] * prompts, list(one)) for one in seconds]
        fastest = max(cells, key=Sums.ratio)
        others = [one for one in cells if one is not fastest]
        wrong += sum(relative(one, fastest, 0.95, 19).high < 0 for one in others)
        how = Resampling(200)
        alone += sum(bootstrap.relative(one, fastest, how).high < 0 for one in others)
    assert 0 < wrong / (200 * 19) < 1 / 40
    assert alone > 8 * wrong

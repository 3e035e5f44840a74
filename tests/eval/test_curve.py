"""The fitted curve finds the curve that its points lie on, and stays below a perfect draft."""

from __future__ import annotations

import pytest

from eval.bench.fitted_curve import Fit, fit

MINUTES = (1.0, 2.0, 5.0, 15.0, 60.0)


@pytest.mark.parametrize(("half", "power"), [(3.0, 0.6), (10.0, 1.0), (0.5, 2.0)])
def test_points_of_a_curve_give_the_curve_back(half: float, power: float) -> None:
    true = Fit(start=1.3, limit=2.5, half=half, power=power, residual=0.0)
    found = fit(1.3, [(minutes, true.at(minutes)) for minutes in MINUTES], most=5.0)
    assert found is not None
    assert found.residual < 0.005
    assert found.at(240.0) == pytest.approx(true.at(240.0), rel=0.01)


def test_the_limit_is_at_most_that_of_a_perfect_draft() -> None:
    rising = [(minutes, 1.0 + minutes / 20.0) for minutes in MINUTES]
    found = fit(1.0, rising, most=5.0)
    assert found is not None
    assert found.limit <= 5.0
    assert found.at(1e9) <= 5.0


def test_the_curve_begins_at_the_undistilled_draft() -> None:
    found = fit(1.3, [(minutes, 2.0) for minutes in MINUTES], most=5.0)
    assert found is not None
    assert found.at(0.0) == pytest.approx(1.3)


def test_three_points_are_too_few() -> None:
    assert fit(1.0, [(1.0, 1.5), (2.0, 1.7), (5.0, 1.9)], most=5.0) is None

"""One of many against the fastest of them: intervals that hold whichever turns out fastest.

The fastest of many noisy cells is partly the luckiest. An interval that holds for a single pair
calls its equals slower far too often, and says too much of the fastest itself. These are Student's
t on the logarithm of a ratio of sums, by its linear approximation, at a confidence that is divided
among all that might have been picked (Bonferroni), however few the prompts are.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from distillspec.measure.bootstrap import Floats, Interval, Sums


def ratio(one: Sums, confidence: float, comparisons: int) -> Interval:
    """Sum over sum, as one of so many of which one will be picked."""
    return _interval(one.ratio(), _log_residuals(one), confidence, comparisons)


def relative(one: Sums, other: Sums, confidence: float, comparisons: int) -> Interval:
    """ratio(one) / ratio(other) - 1, paired by prompt, as one of so many that are compared."""
    assert len(one.numerators) == len(other.numerators), "paired sums are over the same prompts"
    found = _interval(
        one.ratio() / other.ratio(),
        _log_residuals(one) - _log_residuals(other),
        confidence,
        comparisons,
    )
    return Interval(found.value - 1.0, found.low - 1.0, found.high - 1.0)


def _log_residuals(sums: Sums) -> Floats:
    """By prompt, what log(sum over sum) owes to it; n of them, zero on average."""
    above = np.asarray(sums.numerators, dtype=np.float64)
    below = np.asarray(sums.denominators, dtype=np.float64)
    residuals: Floats = above / above.mean() - below / below.mean()
    return residuals


def _interval(value: float, residuals: Floats, confidence: float, comparisons: int) -> Interval:
    """Without bounds (nan) where there is one prompt."""
    n = len(residuals)
    if n < 2:
        return Interval(value, float("nan"), float("nan"))
    error = float(np.sqrt((residuals**2).sum() / (n * (n - 1))))
    tail = (1.0 - confidence) / (2 * max(1, comparisons))
    reach = float(stats.t.isf(tail, n - 1)) * error
    with np.errstate(over="ignore"):
        factor = float(np.exp(reach))
    return Interval(value, value / factor, value * factor)

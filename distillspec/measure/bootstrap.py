"""Intervals by resampling prompts: the prompt is the unit, because its tokens are not independent.

Every rate here is a ratio of sums over prompts (tokens / forwards, seconds / seconds), so counts
travel to this file and only here are divided. Percentile bootstrap, Efron & Tibshirani (1993),
chapters 10 and 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distillspec.seeds import derive_seed

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with its percentile interval; all three are nan where nothing was counted."""

    value: float
    low: float
    high: float

    def excludes(self, number: float) -> bool:
        return self.high < number or self.low > number


class Resampling(NamedTuple):
    """How an interval is made: resamples drawn, share covered (0.5..1), seed of the draws."""

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0


class Sums(NamedTuple):
    """Per prompt, in one fixed order of prompts: what is counted, and what it is divided by."""

    numerators: Sequence[float]
    denominators: Sequence[float]

    def ratio(self) -> float:
        """Sum over sum, nan if the denominators add up to nothing."""
        below = float(sum(self.denominators))
        return float(sum(self.numerators)) / below if below else float("nan")


def ratio(sums: Sums, how: Resampling) -> Interval:
    """Ratio of sums over prompts, with its interval."""
    return _interval(sums.ratio(), _resampled_ratios(sums, _draws(len(sums.numerators), how)), how)


def difference(one: Sums, other: Sums, how: Resampling) -> Interval:
    """ratio(one) - ratio(other), paired: both sides see the same resampled prompts."""
    first, second = _paired(one, other, how)
    return _interval(one.ratio() - other.ratio(), first - second, how)


def relative(one: Sums, other: Sums, how: Resampling) -> Interval:
    """ratio(one) / ratio(other) - 1, paired; 0.1 means 10 % more."""
    first, second = _paired(one, other, how)
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = first / second - 1.0
    base = other.ratio()
    value = one.ratio() / base - 1.0 if base else float("nan")
    return _interval(value, resampled, how)


def ratio_of_runs(runs: Sequence[Sums], how: Resampling) -> Interval:
    """Ratio of sums over several runs on the same prompts; prompts and runs are resampled.

    Few runs tell little of how runs scatter: of S of them the scatter is seen (S - 1) / S-fold.
    """
    return _interval(_joined(runs).ratio(), _resampled_runs(runs, how, side=0), how)


def relative_of_runs(one: Sequence[Sums], other: Sequence[Sums], how: Resampling) -> Interval:
    """ratio(one) / ratio(other) - 1, over runs: paired in the prompts, not in the runs."""
    assert len({len(run.numerators) for run in (*one, *other)}) == 1, "of the same prompts"
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = _resampled_runs(one, how, side=0) / _resampled_runs(other, how, side=1) - 1.0
    base = _joined(other).ratio()
    value = _joined(one).ratio() / base - 1.0 if base else float("nan")
    return _interval(value, resampled, how)


def _joined(runs: Sequence[Sums]) -> Sums:
    return Sums(
        [value for run in runs for value in run.numerators],
        [value for run in runs for value in run.denominators],
    )


def _resampled_runs(runs: Sequence[Sums], how: Resampling, side: int) -> Floats:
    draws = _draws(len(runs[0].numerators), how)
    generator = np.random.default_rng(derive_seed(how.seed, "resampled runs", side))
    chosen = generator.integers(0, len(runs), size=(how.resamples, len(runs)))
    weights = np.stack([(chosen == run).sum(axis=1) for run in range(len(runs))])
    above, below = (
        sum(
            weight * np.asarray(part, dtype=np.float64)[draws].sum(axis=1)
            for weight, part in zip(weights, parts, strict=True)
        )
        for parts in zip(*runs, strict=True)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled: Floats = np.where(below > 0, above / below, np.nan)
    return resampled


def _paired(one: Sums, other: Sums, how: Resampling) -> tuple[Floats, Floats]:
    assert len(one.numerators) == len(other.numerators), "paired sums are over the same prompts"
    draws = _draws(len(one.numerators), how)
    return _resampled_ratios(one, draws), _resampled_ratios(other, draws)


def _draws(prompts: int, how: Resampling) -> NDArray[np.int64]:
    generator = np.random.default_rng(derive_seed(how.seed, "resampled prompts"))
    return generator.integers(0, prompts, size=(how.resamples, prompts))


def _resampled_ratios(sums: Sums, draws: NDArray[np.int64]) -> Floats:
    above = np.asarray(sums.numerators, dtype=np.float64)[draws].sum(axis=1)
    below = np.asarray(sums.denominators, dtype=np.float64)[draws].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled: Floats = np.where(below > 0, above / below, np.nan)
    return resampled


def _interval(value: float, resampled: Floats, how: Resampling) -> Interval:
    counted = resampled[np.isfinite(resampled)]
    if counted.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    tail = (1.0 - how.confidence) / 2.0
    low, high = np.quantile(counted, (tail, 1.0 - tail))
    return Interval(value, float(low), float(high))

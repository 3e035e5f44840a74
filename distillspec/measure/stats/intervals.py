"""All intervals and verdicts: Student's t over source documents.

The unit is the document (file, conversation, question), because prompts of one document, and the
tokens of one prompt, are not independent. Every rate is a ratio of sums over documents (tokens /
forwards, seconds / seconds). Sums come to this file, and only this file divides them.

An interval is Student's t on the logarithm of the ratio (a difference: on the ratio itself), with
the jackknife's standard error, leaving out one document at a time (Efron & Tibshirani 1993, chapter
11; without its factor (n - 1) / n, with which few documents cover too rarely). Its degrees of
freedom are the effective number of documents minus one (Kish: a few large documents count like
fewer), or fewer if a few documents carry the variance (by its kurtosis). If the best of many is
picked, or several are compared, the confidence is divided among them (Bonferroni). Only `verdicts`,
`verdicts_of_runs` and `verdict_against` make claims in words, and only from FEWEST documents on.
`eval/campaigns/intervals.py` measures how often intervals and verdicts are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
_Scale = Callable[[Floats], Floats]
Verdict = Literal["higher", "lower", "no difference shown", "too few documents", "not tested"]

_ROUNDING = 1e-12  # equal sums may have been added up in another order
FEWEST = 8  # documents; below this there is no verdict


class Interval(NamedTuple):
    """An estimate with its bounds.

    Without counts all are nan; with one document the bounds are nan.
    """

    value: float
    low: float
    high: float

    def within(self, lowest: float, highest: float) -> Interval:
        """The interval of a quantity that cannot be outside these limits."""
        return Interval(self.value, max(self.low, lowest), min(self.high, highest))


NOTHING = Interval(math.nan, math.nan, math.nan)


class Sums(NamedTuple):
    """Numerators and denominators of a ratio per unit, in one fixed order.

    The units are prompts until `by_document` adds up those of one document. Intervals need
    documents.
    """

    numerators: Sequence[float]
    denominators: Sequence[float]

    def ratio(self) -> float:
        """Sum over sum; nan if the denominators add up to 0."""
        below = float(sum(self.denominators))
        return float(sum(self.numerators)) / below if below else float("nan")


def by_document(sums: Sums, documents: Sequence[str]) -> Sums:
    """Add up the prompts of each document, in the order in which documents first appear.

    Args:
        sums: One entry per prompt.
        documents: The document of each prompt.
    """
    assert len(sums.numerators) == len(documents), "one document for each prompt"
    above: dict[str, float] = {}
    below: dict[str, float] = {}
    for document, numerator, denominator in zip(documents, *sums, strict=True):
        above[document] = above.get(document, 0.0) + numerator
        below[document] = below.get(document, 0.0) + denominator
    return Sums(list(above.values()), list(below.values()))


def ratio(sums: Sums, confidence: float, among: int = 1) -> Interval:
    """Sum over sum, with its interval.

    Args:
        sums: One entry per document.
        confidence: Probability that the interval contains the true value, in (0, 1).
        among: Number of candidates from which the best was picked; 1 without picking.
    """
    return _around(sums.ratio(), _Estimate.of(logarithm, sums), confidence, among)


def difference(sums: Sums, base: Sums, confidence: float, among: int = 1) -> Interval:
    """ratio(sums) - ratio(base), paired by document; confidence and among as in `ratio`."""
    estimate = _Estimate.of(np.asarray, sums, base)
    reach = estimate.reach(confidence, among)
    return Interval(estimate.value, estimate.value - reach, estimate.value + reach)


def relative(sums: Sums, base: Sums, confidence: float, among: int = 1) -> Interval:
    """ratio(sums) / ratio(base) - 1, paired by document; 0.1 means 10 % more."""
    estimate = _Estimate.of(logarithm, sums, base)
    return _more(_around(_quotient(sums, base), estimate, confidence, among))


# --- several runs on the same documents -----------------------------------------------------------


def ratio_of_runs(runs: Sequence[Sums], confidence: float, among: int = 1) -> Interval:
    """Ratio of sums over several runs (seeds) on the same documents.

    Documents and runs both vary: their variances add up, and degrees of freedom follow from
    Satterthwaite. With a single run, the variance between runs is unknown and left out.
    """
    return _around(_joined(runs).ratio(), _over_runs(runs), confidence, among)


def relative_of_runs(
    runs: Sequence[Sums], base: Sequence[Sums], confidence: float, among: int = 1
) -> Interval:
    """ratio(runs) / ratio(base) - 1: documents are paired, runs are not."""
    value = _quotient(_joined(runs), _joined(base))
    return _more(_around(value, _over_runs(runs, base), confidence, among))


# --- claims in words ------------------------------------------------------------------------------


def verdicts(pairs: Sequence[tuple[Sums, Sums]], confidence: float) -> list[Verdict]:
    """Whether the first ratio of each pair is higher or lower than the second, tested together.

    Holm's procedure (1979): if no pair differs, the probability of any claim of a difference is at
    most 1 - confidence, for any number of pairs.

    Args:
        pairs: Every pair that gets a verdict; paired by document.
        confidence: Confidence of all claims together.
    """
    return _holm([_Estimate.of(logarithm, *pair) for pair in pairs], confidence)


def verdicts_of_runs(
    pairs: Sequence[tuple[Sequence[Sums], Sequence[Sums]]], confidence: float
) -> list[Verdict]:
    """As `verdicts`, with several runs on each side."""
    return _holm([_over_runs(*pair) for pair in pairs], confidence)


def verdict_against(sums: Sums, number: float, confidence: float, among: int = 1) -> Verdict:
    """Whether the ratio is higher or lower than a number; arguments as in `ratio`.

    A ratio of counts is at least 0, so any ratio above 0 is higher than 0 without a test.
    """
    estimate = _Estimate.of(logarithm, sums)
    if number <= 0.0:
        # `claim` reads only the sign of the value.
        return estimate._replace(value=1.0).claim(sums.ratio() > number)
    moved = estimate._replace(value=estimate.value - math.log(number))
    return moved.claim(moved.p() < (1.0 - confidence) / max(1, among))


def _holm(estimates: Sequence[_Estimate], confidence: float) -> list[Verdict]:
    claimed = holm(np.array([estimate.p() for estimate in estimates]), 1.0 - confidence)
    return [
        estimate.claim(bool(is_claimed))
        for estimate, is_claimed in zip(estimates, claimed, strict=True)
    ]


def holm(p: Floats, level: float) -> NDArray[np.bool_]:
    """Which hypotheses of families of k are rejected: [..., k] -> [..., k].

    Starts at the smallest p and goes on while p < level / (number of hypotheses not yet rejected).
    """
    k = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    below = np.take_along_axis(p, order, axis=-1) < level / (k - np.arange(k))
    rejected = np.zeros(p.shape, dtype=np.bool_)
    np.put_along_axis(rejected, order, np.logical_and.accumulate(below, axis=-1), axis=-1)
    return rejected


# --- the jackknife --------------------------------------------------------------------------------


class Jackknifed(NamedTuple):
    """An estimate on the scale of the test.

    Attributes:
        value: The estimate.
        error: Its standard error; nan if unknown.
        degrees: Degrees of freedom of the error.
    """

    value: Floats
    error: Floats
    degrees: Floats

    def reach(self, confidence: float, among: int = 1) -> Floats:
        """Half the width of the interval."""
        quantile: Floats = -special.stdtrit(self.degrees, (1.0 - confidence) / (2 * max(1, among)))
        return quantile * self.error

    def p(self) -> Floats:
        """Two-sided p value of the hypothesis that the true value is 0; 1 if unknown."""
        with np.errstate(divide="ignore", invalid="ignore"):
            two_sided = 2.0 * special.stdtr(self.degrees, -np.abs(self.value) / self.error)
        known = np.isfinite(self.error) & (np.abs(self.value) >= _ROUNDING)
        # Without any scatter, a difference is certain.
        made: Floats = np.where(known, np.where(self.error == 0.0, 0.0, two_sided), 1.0)
        return made


def jackknife(scale: _Scale, parts: Sequence[Floats]) -> Jackknifed:
    """Jackknife of scale(ratio), or of the difference of two, over the documents.

    Args:
        scale: `logarithm`, or the identity.
        parts: Numerators and denominators by document, shape [..., n] each. Two of them, or four
            of two ratios that are paired by document.
    """
    n = parts[0].shape[-1]
    totals = [part.sum(axis=-1) for part in parts]
    value = _contrast(scale, totals)
    left_out = _contrast(scale, [s[..., None] - x for s, x in zip(totals, parts, strict=True)])
    with np.errstate(all="ignore"):
        squares = (left_out - left_out.mean(axis=-1, keepdims=True)) ** 2
        scatter = squares.sum(axis=-1)
        error = np.where(np.isfinite(value) & (n > 1), np.sqrt(scatter), np.nan)
        # Effective number of documents (Kish), from the mean share of each document in the sums.
        shares = np.stack([x / s[..., None] for s, x in zip(totals, parts, strict=True)])
        counted = np.stack([s != 0.0 for s in totals])
        weight = np.where(counted[..., None], shares, 0.0).sum(axis=0)
        weight = weight / counted.sum(axis=0)[..., None]
        degrees = 1.0 / (weight**2).sum(axis=-1) - 1.0
        # fmin ignores nan, which means no limit.
        degrees = np.fmin(degrees, _degrees_of_scatter(squares))
        degrees = np.maximum(1.0, degrees)
    return Jackknifed(value, error, degrees)


def _degrees_of_scatter(squares: Floats) -> Floats:
    """Degrees of freedom of the variance of n documents; n - 1 for normal documents.

    The variance of a sample's variance s2 is sigma^4 (kurtosis - (n - 3) / (n - 1)) / n, and a
    chi-squared of d degrees has 2 / d: if a few documents carry the variance, d is small. The
    kurtosis is estimated without bias for normal documents (G2 of Joanes & Gill 1998).

    Args:
        squares: Squared deviations from the mean, shape [..., n].

    Returns:
        Shape [...]. nan means no limit: fewer than four documents, or light tails.
    """
    n = squares.shape[-1]
    if n < 4:
        return np.full(squares.shape[:-1], np.nan)
    excess = n * (squares**2).sum(axis=-1) / squares.sum(axis=-1) ** 2 - 3.0
    excess = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * excess + 6.0)
    degrees: Floats = 2.0 * n / (3.0 + excess - (n - 3) / (n - 1))
    return np.where(degrees > 0.0, degrees, np.nan)


class _Estimate(NamedTuple):
    """The numbers of `Jackknifed` as floats, and the number of documents."""

    value: float
    error: float
    degrees: float
    units: int

    @classmethod
    def of(cls, scale: _Scale, sums: Sums, base: Sums | None = None) -> _Estimate:
        """scale(ratio), or with `base` the difference of two ratios, paired by document."""
        sides = [sums] if base is None else [sums, base]
        parts = [np.asarray(part, dtype=np.float64) for side in sides for part in side]
        assert len({len(part) for part in parts}) == 1, "paired sums have the same documents"
        value, error, degrees = map(float, jackknife(scale, parts))
        return cls(value, error, degrees, len(parts[0]))

    def _numbers(self) -> Jackknifed:
        return Jackknifed(*(np.asarray(field) for field in self[:3]))

    def reach(self, confidence: float, among: int) -> float:
        return float(self._numbers().reach(confidence, among))

    def p(self) -> float:
        return float(self._numbers().p())

    def claim(self, is_claimed: bool) -> Verdict:
        if self.units < FEWEST:
            return "too few documents"
        if not is_claimed:
            return "no difference shown"
        return "higher" if self.value > 0.0 else "lower"


def _over_runs(*sides: Sequence[Sums]) -> _Estimate:
    """Logarithm of the ratio of one side, or the difference of two sides, over several runs."""
    estimate = _Estimate.of(logarithm, *map(_joined, sides))
    parts = [(estimate.error**2, estimate.degrees)]
    for side in sides:
        if len(side) > 1:
            runs = logarithm(np.array([run.ratio() for run in side]))
            parts.append((float(runs.var(ddof=1)) / len(side), len(side) - 1.0))
    variance = sum(part for part, _ in parts)
    below = sum(part**2 / degrees for part, degrees in parts)
    degrees = variance**2 / below if below else estimate.degrees
    return estimate._replace(error=math.sqrt(variance), degrees=degrees)


def _joined(runs: Sequence[Sums]) -> Sums:
    """Sum of the runs for each document."""
    above, below = zip(*runs, strict=True)
    assert len({len(part) for part in above}) == 1, "runs have the same documents"
    return Sums(*([sum(of_one) for of_one in zip(*part, strict=True)] for part in (above, below)))


def _contrast(scale: _Scale, parts: Sequence[Floats]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [a / np.where(b, b, np.nan) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        values = [scale(ratio) for ratio in ratios]
        contrast: Floats = values[0] - values[1] if len(values) > 1 else values[0]
    return contrast


def logarithm(ratios: Floats) -> Floats:
    """The scale on which ratios are compared. -inf and nan give no warning."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms: Floats = np.log(ratios)
    return logarithms


def _around(value: float, estimate: _Estimate, confidence: float, among: int) -> Interval:
    """The interval of a value from the estimate of its logarithm."""
    with np.errstate(over="ignore"):
        factor = float(np.exp(estimate.reach(confidence, among)))
    return Interval(value, value / factor, value * factor)


def _quotient(sums: Sums, base_sums: Sums) -> float:
    base = base_sums.ratio()
    return sums.ratio() / base if base else math.nan


def _more(ratios: Interval) -> Interval:
    return Interval(*(bound - 1.0 for bound in ratios))

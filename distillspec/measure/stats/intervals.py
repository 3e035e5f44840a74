"""Every interval and every claim in words: Student's t over source documents.

The unit is the document (file, conversation, question), because prompts of one document, and the
tokens of one prompt, are not independent. Every rate here is a ratio of sums over documents
(tokens / forwards, seconds / seconds), so counts travel to this file and only here are divided.

An interval is Student's t on the logarithm of the ratio (a difference: on the ratio itself), with
the jackknife's standard error, leaving out one document at a time (Efron & Tibshirani 1993, chapter
11; without its factor (n - 1) / n, with which few documents cover too rarely). Its degrees of
freedom are the documents of equal weight less one (Kish's effective number: a few large ones count
like fewer), or fewer where a few documents carry the scatter (by its kurtosis). Where one of many
is picked for being the best, or several are compared, the confidence is divided among them
(Bonferroni). Claims in words are made by `verdicts`, `verdicts_of_runs` and `verdict_against`
alone, and not below FEWEST documents.
`eval/campaigns/intervals.py` shows how often all of it is wrong.
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

_ROUNDING = 1e-12  # of equal sums, which may have been added up in another order
FEWEST = 8  # documents; with fewer nothing is claimed in words


class Interval(NamedTuple):
    """An estimate with its bounds: nan where nothing was counted, or in one document only."""

    value: float
    low: float
    high: float

    def within(self, lowest: float, highest: float) -> Interval:
        """The same of a quantity that cannot lie beyond these."""
        return Interval(self.value, max(self.low, lowest), min(self.high, highest))


NOTHING = Interval(math.nan, math.nan, math.nan)


class Sums(NamedTuple):
    """Per unit, in one fixed order: what is counted, and what it is divided by.

    Of prompts until `by_document` adds up those of one document; intervals are of documents.
    """

    numerators: Sequence[float]
    denominators: Sequence[float]

    def ratio(self) -> float:
        """Sum over sum, nan if the denominators add up to nothing."""
        below = float(sum(self.denominators))
        return float(sum(self.numerators)) / below if below else float("nan")


def by_document(sums: Sums, documents: Sequence[str]) -> Sums:
    """Sums over prompts -> over their documents, in the order in which these first appear.

    Args:
        sums: Per prompt.
        documents: Of each prompt, the document that it comes from.
    """
    assert len(sums.numerators) == len(documents), "a document for each prompt"
    above: dict[str, float] = {}
    below: dict[str, float] = {}
    for document, one, other in zip(documents, *sums, strict=True):
        above[document] = above.get(document, 0.0) + one
        below[document] = below.get(document, 0.0) + other
    return Sums(list(above.values()), list(below.values()))


def ratio(sums: Sums, confidence: float, among: int = 1) -> Interval:
    """Sum over sum.

    Args:
        sums: Per document.
        confidence: That the interval holds the truth, in (0, 1).
        among: Candidates of which this one was picked for its value; 1 if it was not picked.
    """
    return _around(sums.ratio(), _Estimate.of(logarithm, sums), confidence, among)


def difference(one: Sums, other: Sums, confidence: float, among: int = 1) -> Interval:
    """ratio(one) - ratio(other), paired by document; confidence and among as of `ratio`."""
    found = _Estimate.of(np.asarray, one, other)
    reach = found.reach(confidence, among)
    return Interval(found.value, found.value - reach, found.value + reach)


def relative(one: Sums, other: Sums, confidence: float, among: int = 1) -> Interval:
    """ratio(one) / ratio(other) - 1, paired by document; 0.1 means 10 % more."""
    found = _Estimate.of(logarithm, one, other)
    return _more(_around(_quotient(one, other), found, confidence, among))


# --- several runs on the same documents -----------------------------------------------------------


def ratio_of_runs(runs: Sequence[Sums], confidence: float, among: int = 1) -> Interval:
    """Ratio of sums over several runs (seeds) on the same documents.

    Documents and runs both scatter: their variances add up, and so do their degrees of freedom
    (Satterthwaite). How a single run would scatter is not seen.
    """
    return _around(_joined(runs).ratio(), _over_runs(runs), confidence, among)


def relative_of_runs(
    one: Sequence[Sums], other: Sequence[Sums], confidence: float, among: int = 1
) -> Interval:
    """ratio(one) / ratio(other) - 1 over runs: paired in the documents, not in the runs."""
    value = _quotient(_joined(one), _joined(other))
    return _more(_around(value, _over_runs(one, other), confidence, among))


# --- claims in words ------------------------------------------------------------------------------


def verdicts(pairs: Sequence[tuple[Sums, Sums]], confidence: float) -> list[Verdict]:
    """Whether each first one's ratio is higher or lower than the second's, all claims together.

    Holm's procedure (1979): if no two differ, a claim that some do is made with a probability of at
    most 1 - confidence, however many are tested.

    Args:
        pairs: Every pair of which something will be said in words; paired by document.
        confidence: Of the whole family of claims.
    """
    return _holm([_Estimate.of(logarithm, *pair) for pair in pairs], confidence)


def verdicts_of_runs(
    pairs: Sequence[tuple[Sequence[Sums], Sequence[Sums]]], confidence: float
) -> list[Verdict]:
    """As `verdicts`, each side over several runs."""
    return _holm([_over_runs(*pair) for pair in pairs], confidence)


def verdict_against(sums: Sums, number: float, confidence: float, among: int = 1) -> Verdict:
    """Whether the ratio is higher or lower than a number; arguments as of `ratio`.

    A ratio of counts is at least 0, so that any above 0 is higher than 0, without a test.
    """
    found = _Estimate.of(logarithm, sums)
    if number <= 0.0:
        return found._replace(value=1.0).claim(sums.ratio() > number)
    moved = found._replace(value=found.value - math.log(number))
    return moved.claim(moved.p() < (1.0 - confidence) / max(1, among))


def _holm(found: Sequence[_Estimate], confidence: float) -> list[Verdict]:
    claimed = holm(np.array([one.p() for one in found]), 1.0 - confidence)
    return [one.claim(bool(is_claimed)) for one, is_claimed in zip(found, claimed, strict=True)]


def holm(p: Floats, level: float) -> NDArray[np.bool_]:
    """Which of the hypotheses are rejected, of families of k: [..., k] -> [..., k].

    From the smallest p on, as long as each is below level / (number of those not yet rejected).
    """
    k = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    below = np.take_along_axis(p, order, axis=-1) < level / (k - np.arange(k))
    rejected = np.zeros(p.shape, dtype=np.bool_)
    np.put_along_axis(rejected, order, np.logical_and.accumulate(below, axis=-1), axis=-1)
    return rejected


# --- the jackknife --------------------------------------------------------------------------------


class Jackknifed(NamedTuple):
    """value: on the scale of the test; error: its standard error, nan where there is none."""

    value: Floats
    error: Floats
    degrees: Floats

    def reach(self, confidence: float, among: int = 1) -> Floats:
        """Half the width of the interval."""
        found: Floats = -special.stdtrit(self.degrees, (1.0 - confidence) / (2 * max(1, among)))
        return found * self.error

    def p(self) -> Floats:
        """That a value as far from 0 is met if the truth is 0, two-sided; 1 if not known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found = 2.0 * special.stdtr(self.degrees, -np.abs(self.value) / self.error)
        known = np.isfinite(self.error) & (np.abs(self.value) >= _ROUNDING)
        made: Floats = np.where(known, np.where(self.error == 0.0, 0.0, found), 1.0)
        return made


def jackknife(scale: _Scale, parts: Sequence[Floats]) -> Jackknifed:
    """Of scale(ratio), or of the difference of two such, over the documents of the last axis.

    Args:
        scale: Of the ratio: `logarithm`, or as it is.
        parts: Numerators and denominators by document, [..., n] each: two, or four that are paired.
    """
    n = parts[0].shape[-1]
    totals = [part.sum(axis=-1) for part in parts]
    whole = _contrast(scale, totals)
    left_out = _contrast(scale, [s[..., None] - x for s, x in zip(totals, parts, strict=True)])
    with np.errstate(all="ignore"):
        squares = (left_out - left_out.mean(axis=-1, keepdims=True)) ** 2
        scatter = squares.sum(axis=-1)
        error = np.where(np.isfinite(whole) & (n > 1), np.sqrt(scatter), np.nan)
        shares = np.stack([x / s[..., None] for s, x in zip(totals, parts, strict=True)])
        counted = np.stack([s != 0.0 for s in totals])
        weight = np.where(counted[..., None], shares, 0.0).sum(axis=0)
        weight = weight / counted.sum(axis=0)[..., None]
        degrees = 1.0 / (weight**2).sum(axis=-1) - 1.0
        degrees = np.fmin(degrees, _degrees_of_scatter(squares))
        degrees = np.maximum(1.0, degrees)
    return Jackknifed(whole, error, degrees)


def _degrees_of_scatter(squares: Floats) -> Floats:
    """Degrees of freedom with which n documents know their own scatter; n - 1 for normal ones.

    The variance of a sample's variance s2 is sigma^4 (kurtosis - (n - 3) / (n - 1)) / n, and a
    chi-squared of d degrees has 2 / d: a few documents that carry the scatter leave few. The
    kurtosis is estimated without bias for normal documents (G2 of Joanes & Gill 1998).

    Args:
        squares: Of the deviations from their mean, [..., n].

    Returns:
        Shape [...]; nan for no limit: below four documents, or with light tails.
    """
    n = squares.shape[-1]
    if n < 4:
        return np.full(squares.shape[:-1], np.nan)
    excess = n * (squares**2).sum(axis=-1) / squares.sum(axis=-1) ** 2 - 3.0
    excess = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * excess + 6.0)
    degrees: Floats = 2.0 * n / (3.0 + excess - (n - 3) / (n - 1))
    return np.where(degrees > 0.0, degrees, np.nan)


class _Estimate(NamedTuple):
    """Numbers as of `Jackknifed`, of so many documents."""

    value: float
    error: float
    degrees: float
    units: int

    @classmethod
    def of(cls, scale: _Scale, one: Sums, other: Sums | None = None) -> _Estimate:
        """scale(ratio), or the difference of two that are paired by document."""
        sides = [one] if other is None else [one, other]
        parts = [np.asarray(part, dtype=np.float64) for side in sides for part in side]
        assert len({len(part) for part in parts}) == 1, "paired sums are over the same documents"
        value, error, degrees = map(float, jackknife(scale, parts))
        return cls(value, error, degrees, len(parts[0]))

    def _numbers(self) -> Jackknifed:
        return Jackknifed(*(np.asarray(one) for one in self[:3]))

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
    """Of one side, or of one against the other, on the scale of logarithms."""
    found = _Estimate.of(logarithm, *map(_joined, sides))
    parts = [(found.error**2, found.degrees)]
    for side in sides:
        if len(side) > 1:
            runs = logarithm(np.array([run.ratio() for run in side]))
            parts.append((float(runs.var(ddof=1)) / len(side), len(side) - 1.0))
    variance = sum(part for part, _ in parts)
    below = sum(part**2 / degrees for part, degrees in parts)
    degrees = variance**2 / below if below else found.degrees
    return found._replace(error=math.sqrt(variance), degrees=degrees)


def _joined(runs: Sequence[Sums]) -> Sums:
    """Added up document by document."""
    above, below = zip(*runs, strict=True)
    assert len({len(part) for part in above}) == 1, "of the same documents"
    return Sums(*([sum(of_one) for of_one in zip(*part, strict=True)] for part in (above, below)))


def _contrast(scale: _Scale, parts: Sequence[Floats]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [a / np.where(b, b, np.nan) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        values = [scale(one) for one in ratios]
        found: Floats = values[0] - values[1] if len(values) > 1 else values[0]
    return found


def logarithm(ratios: Floats) -> Floats:
    """The scale on which ratios are compared; -inf and nan pass without a warning."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.log(ratios)
    return found


def _around(value: float, found: _Estimate, confidence: float, among: int) -> Interval:
    """The interval of a value whose logarithm was estimated."""
    with np.errstate(over="ignore"):
        factor = float(np.exp(found.reach(confidence, among)))
    return Interval(value, value / factor, value * factor)


def _quotient(one: Sums, other: Sums) -> float:
    base = other.ratio()
    return one.ratio() / base if base else math.nan


def _more(found: Interval) -> Interval:
    return Interval(*(bound - 1.0 for bound in found))

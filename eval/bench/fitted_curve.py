"""A curve of diminishing gains through what trainings of different length have reached.

It describes the points. Its largest residual shows how well, and beyond the last point it is a
guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_FEWEST_POINTS = 4  # for three free numbers


class Fit(NamedTuple):
    """tau(t) = limit - (limit - start) / (1 + t / half)^power.

    Attributes:
        start: tau without training.
        half: Minutes.
        residual: The largest distance of a point.
    """

    start: float
    limit: float
    half: float
    power: float
    residual: float

    def at(self, minutes: float) -> float:
        left: float = (1.0 + minutes / self.half) ** -self.power
        return self.limit - (self.limit - self.start) * left


def fit(start: float, points: Sequence[tuple[float, float]], most: float) -> Fit | None:
    """The curve through `start` that is closest to the points.

    Args:
        start: tau without training.
        points: Minutes and tau of each training.
        most: tau of a perfect draft, the highest limit.

    Returns:
        None for fewer than four points.
    """
    if len(points) < _FEWEST_POINTS:
        return None
    minutes, taus = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    fits = []
    for half in np.geomspace(minutes.min() / 10.0, minutes.max() * 10.0, 120):
        for power in np.geomspace(0.1, 3.0, 60):
            # For given h and k the limit is a linear least-squares problem.
            gained = 1.0 - (1.0 + minutes / half) ** -power
            limit = start + float(gained @ (taus - start) / (gained @ gained))
            limit = min(max(limit, float(taus.max())), most)
            off = np.abs(start + (limit - start) * gained - taus)
            fits.append(
                (float(off @ off), Fit(start, limit, float(half), float(power), float(off.max())))
            )
    return min(fits, key=lambda each: each[0])[1]

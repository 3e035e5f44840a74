"""Numbers as text for terminals, pages and cards: what does not exist never appears as `nan`.

An estimate of one document has no interval, and one of no document has no value either; a ratio to
zero is infinite. Every number that an evaluation may lack is written by a function of this file.
"""

from __future__ import annotations

import math

NONE = "–"
NOT_MEASURED = "not measured"
NO_INTERVAL = "no interval"


def number(value: float | None, form: str = ".2f", unit: str = "") -> str:
    """A dash where it does not exist, for the cell of a table."""
    return NONE if value is None or not math.isfinite(value) else f"{value:{form}}{unit}"


def known(value: float | None, form: str = ".2f", unit: str = "") -> str:
    """In words where it does not exist, for a sentence."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else f"{value:{form}}{unit}"


def interval(
    low: float, high: float, form: str = ".2f", between: str = " to ", without: str = NONE
) -> str:
    """Both bounds, or `without` where one does not exist: half an interval bounds nothing."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return without
    return f"{low:{form}}{between}{high:{form}}"


def bracketed(low: float, high: float, form: str = ".2f", unit: str = "") -> str:
    """`[low, high]` after an estimate, or `[no interval]`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"[{NO_INTERVAL}]"
    return f"[{low:{form}}{unit}, {high:{form}}{unit}]"


def with_interval(value: float, low: float, high: float, form: str = ".2f", unit: str = "") -> str:
    """`1.50x [1.40, 1.60]`; `not measured` alone where the estimate does not exist."""
    if not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:{form}}{unit} {bracketed(low, high, form)}"


def clock(seconds: float | None) -> str:
    """Seconds as minutes:seconds or hours:minutes:seconds; "unknown" for None."""
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""Methods against each other: which decodes fastest, and what each wastes on the way."""

from __future__ import annotations

import math
from collections.abc import Callable

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import FEWEST
from distillspec.measure.summary.records import Place as RankedPlace
from distillspec.measure.summary.records import Ranked
from distillspec.measure.summary.tally import Place, Tally
from distillspec.measure.timed.rows import CellRow
from distillspec.speculation.records import Counts


def ranking(tally: Tally) -> list[Ranked]:
    """All cells of a temperature by tokens per second; empty where there is one method."""
    if len({place[1] for place in tally.places()}) < 2:
        return []
    found = []
    for temperature in tally.temperatures():
        here = [place for place in tally.places() if place[3] == temperature]
        here.sort(key=lambda place: -tally.speed(place).ratio())
        found += [_ranked(tally, place, here[0], comparisons=len(here) - 1) for place in here]
    return found


def _ranked(tally: Tally, place: Place, fastest: Place, comparisons: int) -> Ranked:
    draft, method, gamma, temperature = place
    counts = sum((c for c in tally.counts(place)), start=Counts())
    beyond = intervals.relative(
        tally.speed(place), tally.speed(fastest), tally.confidence, comparisons
    )
    verdict: RankedPlace = "within noise of it"
    if tally.documents() < FEWEST:
        verdict = "too few documents"
    elif beyond.high < 0.0:
        verdict = "slower"
    target_busy = _share_of_time(tally, place, lambda row: row.target_busy_seconds)
    is_parallel = not math.isnan(target_busy)  # its draft throws away what nobody judged
    wasted = per_token(counts.drafted - counts.accepted, counts)
    return Ranked(
        draft=draft,
        method=method,
        gamma=gamma,
        temperature=temperature,
        tokens_per_second=tally.speed(place).ratio(),
        tau=tally.tau(place).ratio(),
        drafted_per_token=per_token(counts.drafted, counts),
        wasted_per_token=math.nan if is_parallel else wasted,
        forwards_per_token=per_token(counts.verifications, counts),
        target_busy=target_busy,
        draft_busy=_share_of_time(tally, place, lambda row: row.draft_busy_seconds),
        relative=beyond.value,
        relative_low=beyond.low,
        relative_high=beyond.high,
        verdict="fastest" if place == fastest else verdict,
    )


def _share_of_time(tally: Tally, place: Place, busy: Callable[[CellRow], float | None]) -> float:
    """nan where one process does it all."""
    rows = tally.rows(place)
    seconds = sum(math.nan if (one := busy(row)) is None else one for row in rows)
    return seconds / sum(row.seconds for row in rows)


def per_token(count: int, counts: Counts) -> float:
    """What was counted of whole rounds, per token they emitted; nan where no round was whole."""
    return count / counts.emitted if counts.emitted else math.nan

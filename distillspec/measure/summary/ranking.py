"""Ranking of methods by speed, with the tokens that each method wastes."""

from __future__ import annotations

import math
from collections.abc import Callable

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import FEWEST
from distillspec.measure.summary.cells import CellKey
from distillspec.measure.summary.records import Ranked, RankVerdict
from distillspec.measure.summary.tally import Tally
from distillspec.measure.timed.rows import CellRow
from distillspec.speculation.records import Counts


def ranking(tally: Tally) -> list[Ranked]:
    """The cells of each temperature by tokens per second; empty with a single method."""
    if len({key.method for key in tally.cell_keys()}) < 2:
        return []
    ranked = []
    for temperature in tally.temperatures():
        keys = [key for key in tally.cell_keys() if key.temperature == temperature]
        keys.sort(key=lambda key: -tally.speed(key).ratio())
        ranked += [_ranked(tally, key, keys[0], comparisons=len(keys) - 1) for key in keys]
    return ranked


def _ranked(tally: Tally, key: CellKey, fastest: CellKey, comparisons: int) -> Ranked:
    counts = sum((c for c in tally.counts(key)), start=Counts())
    # Bonferroni over all comparisons with the fastest, which the data picked.
    beyond = intervals.relative(
        tally.speed(key), tally.speed(fastest), tally.confidence, comparisons
    )
    verdict: RankVerdict = "within noise of it"
    if tally.documents() < FEWEST:
        verdict = "too few documents"
    elif beyond.high < 0.0:
        verdict = "slower"
    target_busy = _share_of_time(tally, key, lambda row: row.target_busy_seconds)
    is_parallel = not math.isnan(target_busy)  # its draft discards tokens that were never verified
    wasted = per_token(counts.drafted - counts.accepted, counts)
    return Ranked(
        *key,
        tokens_per_second=tally.speed(key).ratio(),
        tau=tally.tau(key).ratio(),
        drafted_per_token=per_token(counts.drafted, counts),
        wasted_per_token=math.nan if is_parallel else wasted,
        forwards_per_token=per_token(counts.verifications, counts),
        target_busy=target_busy,
        draft_busy=_share_of_time(tally, key, lambda row: row.draft_busy_seconds),
        relative=beyond,
        verdict="fastest" if key == fastest else verdict,
    )


def _share_of_time(tally: Tally, key: CellKey, busy: Callable[[CellRow], float | None]) -> float:
    """Busy seconds over all seconds; nan if one process does all the work."""
    rows = tally.rows(key)
    # One row without busy times makes the share unknown: nan spreads.
    seconds = sum(math.nan if (value := busy(row)) is None else value for row in rows)
    return seconds / sum(row.seconds for row in rows)


def per_token(count: int, counts: Counts) -> float:
    """A count per token emitted in complete rounds; nan without complete rounds."""
    return count / counts.emitted if counts.emitted else math.nan

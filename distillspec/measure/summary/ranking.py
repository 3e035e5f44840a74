"""Methods against each other: which decodes fastest, and what each wastes on the way."""

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
    """All cells of a temperature by tokens per second; empty where there is one method."""
    if len({key.method for key in tally.cell_keys()}) < 2:
        return []
    found = []
    for temperature in tally.temperatures():
        keys = [key for key in tally.cell_keys() if key.temperature == temperature]
        keys.sort(key=lambda key: -tally.speed(key).ratio())
        found += [_ranked(tally, key, keys[0], comparisons=len(keys) - 1) for key in keys]
    return found


def _ranked(tally: Tally, key: CellKey, fastest: CellKey, comparisons: int) -> Ranked:
    counts = sum((c for c in tally.counts(key)), start=Counts())
    beyond = intervals.relative(
        tally.speed(key), tally.speed(fastest), tally.confidence, comparisons
    )
    verdict: RankVerdict = "within noise of it"
    if tally.documents() < FEWEST:
        verdict = "too few documents"
    elif beyond.high < 0.0:
        verdict = "slower"
    target_busy = _share_of_time(tally, key, lambda row: row.target_busy_seconds)
    is_parallel = not math.isnan(target_busy)  # its draft throws away what nobody judged
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
    """nan where one process does it all."""
    rows = tally.rows(key)
    seconds = sum(math.nan if (one := busy(row)) is None else one for row in rows)
    return seconds / sum(row.seconds for row in rows)


def per_token(count: int, counts: Counts) -> float:
    """What was counted of whole rounds, per token they emitted; nan where no round was whole."""
    return count / counts.emitted if counts.emitted else math.nan

"""An oracle that drafts the best length in each round: an upper bound for stop rules."""

from __future__ import annotations

from collections.abc import Sequence

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Sums
from distillspec.measure.summary.cells import CellKey
from distillspec.measure.summary.ranking import per_token
from distillspec.measure.summary.records import Oracle, Ranked
from distillspec.measure.summary.tally import Tally
from distillspec.speculation.records import Counts
from distillspec.speculation.round_times import RoundTimes


def oracles(tally: Tally, ranking: Sequence[Ranked]) -> list[Oracle]:
    """One record per draft and temperature, if methods are ranked and include chains."""
    shown = []
    for first in ranking:
        if first.verdict != "fastest":
            continue
        keys = [key for key in tally.cell_keys() if key.temperature == first.temperature]
        for draft in dict.fromkeys(key.draft for key in keys):
            # The longest chains show best where an oracle would have stopped.
            chains = [key for key in keys if key.draft == draft and key.method in tally.standard]
            if chains:
                shown.append(_oracle(tally, max(chains, key=lambda key: key.gamma), first.key))
    return shown


def _oracle(tally: Tally, key: CellKey, fastest: CellKey) -> Oracle:
    steps = tally.steps[key.method, key.temperature]
    tokens, seconds = tally.speed_by_prompt(key)
    times = steps.round_times(key.draft)
    by_prompt = tally.counts(key)
    shares = [shortened(counts, key.gamma, times) for counts in by_prompt]
    # Measured seconds are scaled, so that costs outside the model remain.
    cut = [s * share for s, share in zip(seconds, shares, strict=True)]
    speed = tally.by_document(Sums(tokens, cut))
    # The fastest was picked among all cells of this temperature.
    cells = sum(other.temperature == key.temperature for other in tally.cell_keys())
    counts = sum(by_prompt, start=Counts())
    return Oracle(
        *key,
        tokens_per_second=speed.ratio(),
        tau=tally.tau(key).ratio(),
        drafted_per_token=per_token(counts.accepted, counts),
        forwards_per_token=per_token(counts.verifications, counts),
        relative=intervals.relative(speed, tally.speed(fastest), tally.confidence, cells),
    )


def shortened(counts: Counts, gamma: int, times: RoundTimes) -> float:
    """Time of rounds shortened by the oracle over the time of the measured rounds.

    In the cost model, each round took the time of a block of gamma. The oracle stops just before
    the first token that would be rejected: of a round that accepted a tokens it drafts only these.
    It emits as many, since the target's token comes as a bonus instead of a correction.

    Args:
        counts: Counts of chains of `gamma` tokens.
        gamma: Drafted tokens per block.
        times: Of rounds. They are linear between timed blocks; a draft's second unread token is
            left out on both sides.

    Returns:
        1 if no round was complete.
    """
    N = counts.verifications
    if not N:
        return 1.0
    at_least = [N, *counts.accepted_at, 0]  # rounds that accepted a tokens or more
    cut = sum(
        (at_least[a] - at_least[a + 1]) * times.between(a, a) for a in range(len(at_least) - 1)
    )
    return cut / (N * times.at(gamma))

"""The length an oracle would draft each round: what no stop rule can beat, told in hindsight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Sums
from distillspec.measure.summary.cells import CellKey
from distillspec.measure.summary.ranking import per_token
from distillspec.measure.summary.records import Oracle, Ranked
from distillspec.measure.summary.tally import Tally
from distillspec.methods import cost_model
from distillspec.speculation.records import Counts


def oracles(tally: Tally, ranking: Sequence[Ranked]) -> list[Oracle]:
    """A line a draft and temperature, where methods are ranked and chains are among them."""
    found = []
    for first in ranking:
        if first.verdict != "fastest":
            continue
        keys = [key for key in tally.cell_keys() if key.temperature == first.temperature]
        for draft in dict.fromkeys(key.draft for key in keys):
            chains = [key for key in keys if key.draft == draft and key.method in tally.standard]
            if chains:
                found.append(_oracle(tally, max(chains, key=lambda key: key.gamma), first.key))
    return found


def _oracle(tally: Tally, key: CellKey, fastest: CellKey) -> Oracle:
    steps = tally.steps[key.method, key.temperature]
    tokens, seconds = tally.speed_by_prompt(key)
    c, v = steps.draft_to_target_time(key.draft), steps.verify_times()
    by_prompt = tally.counts(key)
    shares = [shortened(counts, key.gamma, c, v) for counts in by_prompt]
    cut = [s * share for s, share in zip(seconds, shares, strict=True)]
    speed = tally.by_document(Sums(tokens, cut))
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


def shortened(
    counts: Counts, gamma: int, draft_to_target_time: float, verify_times: Mapping[int, float]
) -> float:
    """Time of rounds cut by the oracle over that of the rounds as they were, in the cost model.

    counts: of chains of `gamma` tokens. A round that kept a tokens took gamma c + v(gamma); the
    oracle stops just before the first token that would be rejected, so it drafts those a tokens and
    takes a c + v(a), and emits as many: the target's token comes as a bonus in place of a
    correction. c, v: over the time of a one-token target step; v(0) is 1, and between the block
    sizes that were timed v is taken as linear. 1 where no round was whole.
    """
    c, N = draft_to_target_time, counts.verifications
    if not N:
        return 1.0
    at_least = [N, *counts.accepted_at, 0]  # rounds that kept a tokens or more
    cut = sum(
        (at_least[a] - at_least[a + 1]) * (a * c + cost_model.verify_time_between(verify_times, a))
        for a in range(len(at_least) - 1)
    )
    return cut / (counts.draft_steps * c + N * verify_times[gamma])

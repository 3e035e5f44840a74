"""Many ways to decode, few prompts each; who is clearly slower leaves, the others go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from distillspec.measure import intervals
from distillspec.measure.breakdown import FEW
from distillspec.measure.intervals import Interval, Sums
from distillspec.measure.timing import Clock

FIRST_LOOK = 6  # prompts; fewer tell ways apart only where one is hopeless
FEWEST = 2  # prompts, with which two ways can be compared at all
_CLEARLY = 0.99  # confidence that a given way, if it is as fast as any, is not dropped


class Texts(NamedTuple):
    """What decoding one prompt took: tokens, and seconds of the baseline and of each way."""

    tokens: int
    plain_seconds: float
    seconds: Mapping[int, float]


class Decode(Protocol):
    def __call__(self, prompt: int, among: Sequence[int]) -> Texts:
        """Decode a prompt in the ways of these numbers, interleaved with the baseline."""
        ...


class Standing(NamedTuple):
    """How a way (by its number) came out of a race.

    prompts: that it decoded. tokens_per_second, speedup (over the baseline), relative (beyond the
    winner, on the prompts that both decoded; all zero for the winner itself): with intervals that
    allow for having picked the fastest of all ways; without bounds (nan) of fewer than FEW prompts.
    dropped: it was clearly slower than the best of that moment.
    """

    way: int
    prompts: int
    tokens_per_second: Interval
    speedup: Interval
    relative: Interval
    dropped: bool

    @property
    def is_near(self) -> bool:
        """It may be as fast as the winner."""
        return not (self.dropped or self.relative.high < 0.0)


class Outcome(NamedTuple):
    """standings: the winner first, by speed, the dropped ones last. plain: baseline, tokens/s."""

    standings: list[Standing]
    plain: Interval
    prompts: int
    why_it_ended: str


def race(
    decode: Decode,
    *,
    ways: int,
    prompts: int,
    seconds: float,
    confidence: float,
    clock: Clock = time.perf_counter,
    progress: Callable[[int, int], None] = lambda prompt, left: None,
) -> Outcome:
    """Decode prompt after prompt in all ways that are still in the race.

    After 6, 12, 24, ... prompts those are dropped whose tokens per second are below the best one's,
    paired over prompts; a given way that is as fast as any is dropped in less than 1 race of 100,
    whichever the others are and however often one looks. It ends when one is left, when the prompts
    or the seconds are used up; two prompts are decoded whatever the time. The winner's own numbers,
    though not their intervals, are a little lucky: it was picked for them.
    """
    assert ways >= 1 and prompts >= FEWEST
    began = clock()
    seen: list[Texts] = []
    left = list(range(ways))
    look = FIRST_LOOK
    why = "all prompts were decoded"
    for prompt in range(prompts):
        if prompt >= FEWEST and clock() - began >= seconds:
            why = "the time was used up"
            break
        progress(prompt, len(left))
        seen.append(decode(prompt, left))
        if len(seen) == look:
            look *= 2
            left = _kept(left, seen, comparisons=(ways - 1) * _looks(prompts))
        if len(left) == 1 < ways:
            why = "one was left"
            break
    plain = Sums([one.tokens for one in seen], [one.plain_seconds for one in seen])
    winner = max(left, key=lambda way: _speed(way, seen).ratio())
    standings = [
        _standing(way, winner, seen, way not in left, confidence, ways) for way in range(ways)
    ]
    standings.sort(key=lambda one: (one.way != winner, one.dropped, -one.tokens_per_second.value))
    return Outcome(standings, _told(plain, confidence, 1), len(seen), why)


def _looks(prompts: int) -> int:
    """How often ways are compared while so many prompts are decoded."""
    return max(0, math.floor(math.log2(prompts / FIRST_LOOK))) + 1


def _kept(left: Sequence[int], seen: Sequence[Texts], comparisons: int) -> list[int]:
    speeds = {way: _speed(way, seen) for way in left}
    best = max(speeds.values(), key=Sums.ratio)
    return [
        way
        for way, speed in speeds.items()
        if not intervals.relative(speed, best, _CLEARLY, comparisons).high < 0.0
    ]


def _standing(
    way: int, winner: int, seen: Sequence[Texts], dropped: bool, confidence: float, ways: int
) -> Standing:
    common = [one for one in seen if way in one.seconds]
    plain = [one.plain_seconds for one in common]
    speed = _speed(way, common)
    return Standing(
        way=way,
        prompts=len(common),
        tokens_per_second=_told(speed, confidence, ways),
        speedup=_told(Sums(plain, [one.seconds[way] for one in common]), confidence, ways),
        relative=_if_told(
            intervals.relative(speed, _speed(winner, common), confidence, ways - 1), common
        ),
        dropped=dropped,
    )


def _told(sums: Sums, confidence: float, comparisons: int) -> Interval:
    return _if_told(intervals.ratio(sums, confidence, comparisons), sums.numerators)


def _if_told(interval: Interval, prompts: Sequence[object]) -> Interval:
    if len(prompts) < FEW:
        return interval._replace(low=math.nan, high=math.nan)
    return interval


def _speed(way: int, seen: Sequence[Texts]) -> Sums:
    return Sums([one.tokens for one in seen], [one.seconds[way] for one in seen])

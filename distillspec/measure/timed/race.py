"""Many ways to decode, few prompts each; who is clearly slower leaves, the others go on."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import (
    Interval,
    Sums,
    Verdict,
    by_document,
    verdict_against,
)
from distillspec.methods.step_times import Clock

FIRST_LOOK = 12  # documents; fewer tell ways apart only where one is hopeless
FEWEST = 2  # prompts, with which two ways can be compared at all
_FRESH = 64  # documents, at most, that the winner's own speed is measured on
_FEWEST_FRESH = 16  # else it is told of the race, allowing for its having been picked
_FRESH_SHARE = 1 / 3  # of the documents, at most
_FRESH_TIME = 0.2  # of the seconds
CLEARLY = 0.99  # confidence that a given way, if it is as fast as any, is not dropped
_ALL_DECODED = "all prompts were decoded"
_RARELY = 0.5  # what a text that was not met may add to a way's mean time, over that time


class Texts(NamedTuple):
    """What decoding one prompt took: tokens, and seconds of the baseline and of each way."""

    tokens: int
    plain_seconds: float
    seconds: Mapping[int, float]


class Decode(Protocol):
    def __call__(self, prompt: int, among: Sequence[int]) -> Texts:
        """Decode a prompt in the ways of these numbers, interleaved with the baseline."""
        ...


class RaceStanding(NamedTuple):
    """How a way (by its number) came out of a race.

    prompts: that it decoded. tokens_per_second, speedup (over the baseline): of the winner on fresh
    texts, which it was not picked by; of the others with intervals that allow for any of them
    having been picked. relative: beyond the winner, on the prompts that both decoded; all zero for
    the winner itself. dropped: it was clearly slower than the best of that moment. gain: whether
    the speed-up is higher than 1. documents: that the prompts of the first two come from.
    """

    way: int
    prompts: int
    tokens_per_second: Interval
    speedup: Interval
    relative: Interval
    dropped: bool
    gain: Verdict
    documents: int

    @property
    def is_near(self) -> bool:
        """It may be as fast as the winner."""
        return not (self.dropped or self.relative.high < 0.0)


class RaceOutcome(NamedTuple):
    """standings: the winner first, by speed, the dropped ones last. plain: baseline, tokens/s.

    documents: that ways were compared on. fresh: prompts after them, decoded by the winner alone,
    that its speed is of; 0 where these were too few, and it is of the race.
    """

    standings: list[RaceStanding]
    plain: Interval
    prompts: int
    documents: int
    fresh: int
    why_it_ended: str

    @property
    def all_decoded(self) -> bool:
        return self.why_it_ended == _ALL_DECODED


class _Texts(NamedTuple):
    """Texts that were decoded, with their documents."""

    seen: list[Texts]
    documents: list[str]

    def add(self, found: Texts, document: str) -> None:
        self.seen.append(found)
        self.documents.append(document)

    def of(self, way: int) -> _Texts:
        """Those that this way decoded."""
        both = zip(self.seen, self.documents, strict=True)
        mine = [(text, document) for text, document in both if way in text.seconds]
        return _Texts([text for text, _ in mine], [document for _, document in mine])

    def units(self) -> int:
        return len(set(self.documents))

    def speed(self, way: int) -> Sums:
        """Tokens over seconds."""
        return self._sums([one.tokens for one in self.seen], self._seconds(way))

    def speedup(self, way: int) -> Sums:
        return self._sums([one.plain_seconds for one in self.seen], self._seconds(way))

    def plain(self) -> Sums:
        return self._sums(
            [one.tokens for one in self.seen], [one.plain_seconds for one in self.seen]
        )

    def _seconds(self, way: int) -> list[float]:
        return [one.seconds[way] for one in self.seen]

    def _sums(self, above: Sequence[float], below: Sequence[float]) -> Sums:
        return by_document(Sums(above, below), self.documents)


def race(
    decode: Decode,
    *,
    ways: int,
    documents: Sequence[str],
    seconds: float,
    confidence: float,
    clock: Clock = time.perf_counter,
    progress: Callable[[int, int], None] = lambda prompt, left: None,
) -> RaceOutcome:
    """Decode prompt after prompt in all ways that are still in the race; then time the winner.

    After 12, 24, 48, ... documents those ways are dropped whose tokens per second are below the
    best one's, paired over documents, by more than what so few documents may have left unseen: a
    given way that is as fast as any is dropped in about 1 race of 100 at most, whichever the others
    are, however often one looks, and also if one text in ten takes it half or twice the time
    (`eval/campaigns/intervals.py`). The race ends when one way is left, or when the prompts or the
    seconds are used up, but for a third of the documents and a fifth of the seconds: on these the
    winner is decoded alone, so that its speed is not that of the texts that made it win. Two
    prompts are raced whatever the time.

    Args:
        decode: Decodes a prompt, by its number.
        ways: How many there are.
        documents: What each prompt comes from.
        seconds: For all of it.
        confidence: Of the intervals.
        clock: What the seconds are told by.
        progress: Is told the prompt and how many ways are left.
    """
    assert ways >= 1 and len(documents) >= FEWEST
    began = clock()
    raced, kept_back = split(documents)
    until = seconds * (1.0 - _FRESH_TIME if kept_back else 1.0)
    seen = _Texts([], [])
    left = list(range(ways))
    look = FIRST_LOOK
    comparisons = (ways - 1) * looks(len({documents[prompt] for prompt in raced}))
    why = _ALL_DECODED
    for number, prompt in enumerate(raced):
        if number >= FEWEST and clock() - began >= until:
            why = "the time was used up"
            break
        progress(prompt, len(left))
        seen.add(decode(prompt, left), documents[prompt])
        if seen.units() >= look:
            look *= 2
            left = _kept(left, seen, comparisons)
        if len(left) == 1 < ways:
            why = "one was left"
            break
    winner = max(left, key=lambda way: seen.speed(way).ratio())
    fresh = _Texts([], [])
    for prompt in itertools.takewhile(lambda _: clock() - began < seconds, kept_back):
        progress(prompt, 1)
        fresh.add(decode(prompt, [winner]), documents[prompt])
    standings = [
        _standing(way, winner, seen, way not in left, confidence, ways) for way in range(ways)
    ]
    has_fresh = fresh.units() >= _FEWEST_FRESH
    if has_fresh:
        standings[winner] = _on_fresh(standings[winner], fresh, confidence)
    standings.sort(key=lambda one: (one.way != winner, one.dropped, -one.tokens_per_second.value))
    plain = intervals.ratio(seen.plain(), confidence)
    prompts = len(fresh.seen) if has_fresh else 0
    return RaceOutcome(standings, plain, len(seen.seen), seen.units(), prompts, why)


def split(documents: Sequence[str]) -> tuple[list[int], list[int]]:
    """Prompts to race on, and one of each of the last documents, to time the winner on."""
    first: dict[str, int] = {}
    for prompt, document in enumerate(documents):
        first.setdefault(document, prompt)
    count = min(_FRESH, int(len(first) * _FRESH_SHARE))
    if count < _FEWEST_FRESH:
        return list(range(len(documents))), []
    back = list(first)[-count:]
    raced = [prompt for prompt, document in enumerate(documents) if document not in set(back)]
    return raced, [first[document] for document in back]


def looks(documents: int) -> int:
    """How often ways are compared while so many documents are decoded."""
    return max(0, math.floor(math.log2(max(1, documents) / FIRST_LOOK))) + 1


def _kept(left: Sequence[int], seen: _Texts, comparisons: int) -> list[int]:
    """Those that may be as fast as the best, texts included that were not met."""
    speeds = {way: seen.speed(way) for way in left}
    fastest = max(left, key=lambda way: speeds[way].ratio())
    beyond = {
        way: intervals.relative(speed, speeds[fastest], CLEARLY, comparisons)
        for way, speed in speeds.items()
    }
    margin = unseen(seen.units())
    return [way for way in left if way == fastest or not beyond[way].high <= -margin]


def unseen(documents: int) -> float:
    """How far a mean time may be off, over itself, by a kind of text that was not met.

    Texts met with probability f are missing among n documents with probability exp(-f n): with a
    confidence of CLEARLY they are rarer than -log(1 - CLEARLY) / n. They add as much times
    _RARELY.
    """
    return _RARELY * -math.log(1.0 - CLEARLY) / documents


def _standing(
    way: int, winner: int, seen: _Texts, dropped: bool, confidence: float, ways: int
) -> RaceStanding:
    common = seen.of(way)
    speed, speedup = common.speed(way), common.speedup(way)
    return RaceStanding(
        way=way,
        prompts=len(common.seen),
        tokens_per_second=intervals.ratio(speed, confidence, ways),
        speedup=intervals.ratio(speedup, confidence, ways),
        relative=intervals.relative(speed, common.speed(winner), confidence, ways - 1),
        dropped=dropped,
        gain=verdict_against(speedup, 1.0, confidence, ways),
        documents=common.units(),
    )


def _on_fresh(winner: RaceStanding, fresh: _Texts, confidence: float) -> RaceStanding:
    """Its own numbers by texts that it was not picked by."""
    speed, speedup = fresh.speed(winner.way), fresh.speedup(winner.way)
    return winner._replace(
        tokens_per_second=intervals.ratio(speed, confidence),
        speedup=intervals.ratio(speedup, confidence),
        gain=verdict_against(speedup, 1.0, confidence),
        documents=fresh.units(),
    )

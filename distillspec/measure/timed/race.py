"""Find the fastest of many ways to decode: clearly slower ways are dropped after few prompts."""

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

FIRST_LOOK = 12  # documents; fewer only separate ways that are far apart
FEWEST = 2  # prompts that a comparison of two ways needs
_FRESH = 64  # documents, at most, on which the winner's speed is measured alone
_FEWEST_FRESH = 16  # below this, the speed comes from the race, corrected for picking
_FRESH_SHARE = 1 / 3  # of the documents, at most
_FRESH_TIME = 0.2  # of the seconds
CLEARLY = 0.99  # confidence that a given way that is as fast as any is not dropped
_ALL_DECODED = "all prompts were decoded"
_RARELY = 0.5  # share of its mean time that an unseen text may add to a way's time


class Texts(NamedTuple):
    """The tokens of one prompt's text, and seconds of the baseline and of each way."""

    tokens: int
    plain_seconds: float
    seconds: Mapping[int, float]


class Decode(Protocol):
    def __call__(self, prompt: int, among: Sequence[int]) -> Texts:
        """Decode a prompt in the ways with these numbers, interleaved with the baseline."""
        ...


class RaceStanding(NamedTuple):
    """The result of one way in a race.

    Attributes:
        way: Its number.
        prompts: Number of prompts that it decoded.
        tokens_per_second, speedup: Speed, and speed over the baseline's. For the winner on fresh
            texts, which did not pick it. For the others with intervals that allow for picking.
        relative: Speed over the winner's minus 1, on the prompts that both decoded.
        dropped: Whether it was clearly slower than the fastest way at that time.
        gain: Whether the speed-up is higher than 1.
        documents: Number of documents behind tokens_per_second and speedup.
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
    """The result of a race.

    Attributes:
        standings: The winner first, the others by speed, dropped ways last.
        plain: Tokens per second of the baseline.
        prompts: Number of prompts in the race.
        documents: Number of documents on which ways were compared.
        fresh: Number of later prompts on which the winner's speed was measured. 0: there were too
            few, so its speed comes from the race.
        why_it_ended: In words.
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
    """Decoded texts with their documents."""

    seen: list[Texts]
    documents: list[str]

    def add(self, texts: Texts, document: str) -> None:
        self.seen.append(texts)
        self.documents.append(document)

    def of(self, way: int) -> _Texts:
        """The texts that this way decoded."""
        both = zip(self.seen, self.documents, strict=True)
        decoded = [(text, document) for text, document in both if way in text.seconds]
        return _Texts([text for text, _ in decoded], [document for _, document in decoded])

    def units(self) -> int:
        return len(set(self.documents))

    def speed(self, way: int) -> Sums:
        """Tokens over seconds."""
        return self._sums([text.tokens for text in self.seen], self._seconds(way))

    def speedup(self, way: int) -> Sums:
        return self._sums([text.plain_seconds for text in self.seen], self._seconds(way))

    def plain(self) -> Sums:
        return self._sums(
            [text.tokens for text in self.seen], [text.plain_seconds for text in self.seen]
        )

    def _seconds(self, way: int) -> list[float]:
        return [text.seconds[way] for text in self.seen]

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
    """Decode each prompt in all ways that are still in the race, then time the winner alone.

    After 12, 24, 48, ... documents, a way is dropped if its tokens per second, paired over
    documents, are below the fastest way's by more than a margin for unseen texts. A given way that
    is as fast as any is dropped in at most about 1 race of 100, for any number of comparisons, and
    also if one text in ten takes it half or twice the time (`eval/campaigns/intervals.py`).

    The race ends when one way is left, or when its prompts or seconds are used up. A third of the
    documents and a fifth of the seconds are reserved: on these the winner is decoded alone, so that
    its speed does not come from the texts that made it win. At least two prompts are raced.

    Args:
        decode: Decodes a prompt, given by its number.
        ways: Number of ways.
        documents: The document of each prompt.
        seconds: Time for the race and for timing the winner.
        confidence: Confidence of the intervals.
        clock: Measures the seconds.
        progress: Receives the prompt and the number of ways left.
    """
    assert ways >= 1 and len(documents) >= FEWEST
    began = clock()
    # 1. Reserve documents and time for the winner.
    raced, kept_back = split(documents)
    until = seconds * (1.0 - _FRESH_TIME if kept_back else 1.0)
    seen = _Texts([], [])
    left = list(range(ways))
    look = FIRST_LOOK
    # Every way may be compared with the fastest at every look.
    comparisons = (ways - 1) * looks(len({documents[prompt] for prompt in raced}))
    why = _ALL_DECODED
    # 2. Decode prompt by prompt; at each look, drop the ways that are clearly slower.
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
            why = "one way was left"
            break
    # 3. Time the winner alone on the reserved documents.
    winner = max(left, key=lambda way: seen.speed(way).ratio())
    fresh = _Texts([], [])
    for prompt in itertools.takewhile(lambda _: clock() - began < seconds, kept_back):
        progress(prompt, 1)
        fresh.add(decode(prompt, [winner]), documents[prompt])
    # 4. With too few fresh documents, the winner's speed comes from the race.
    has_fresh = fresh.units() >= _FEWEST_FRESH
    standings = _ranked(ways, winner, left, seen, fresh if has_fresh else None, confidence)
    plain = intervals.ratio(seen.plain(), confidence)
    prompts = len(fresh.seen) if has_fresh else 0
    return RaceOutcome(standings, plain, len(seen.seen), seen.units(), prompts, why)


def _ranked(
    ways: int,
    winner: int,
    left: Sequence[int],
    seen: _Texts,
    fresh: _Texts | None,
    confidence: float,
) -> list[RaceStanding]:
    """The winner, then the ways that were left, then the dropped ones; each group by speed."""
    standings = [
        _standing(way, winner, seen, way not in left, confidence, ways) for way in range(ways)
    ]
    if fresh is not None:
        standings[winner] = _on_fresh(standings[winner], fresh, confidence)
    return sorted(
        standings,
        key=lambda standing: (
            standing.way != winner,
            standing.dropped,
            -standing.tokens_per_second.value,
        ),
    )


def split(documents: Sequence[str]) -> tuple[list[int], list[int]]:
    """Prompts for the race, and one prompt of each reserved document, to time the winner."""
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
    """Number of comparisons while this many documents are decoded."""
    return max(0, math.floor(math.log2(max(1, documents) / FIRST_LOOK))) + 1


def _kept(left: Sequence[int], seen: _Texts, comparisons: int) -> list[int]:
    """The ways that may be as fast as the fastest, allowing for unseen texts."""
    speeds = {way: seen.speed(way) for way in left}
    fastest = max(left, key=lambda way: speeds[way].ratio())
    beyond = {
        way: intervals.relative(speed, speeds[fastest], CLEARLY, comparisons)
        for way, speed in speeds.items()
    }
    margin = unseen(seen.units())
    # `not <=`, so that an unknown bound (nan) drops no way.
    return [way for way in left if way == fastest or not beyond[way].high <= -margin]


def unseen(documents: int) -> float:
    """Relative error of a mean time that a kind of unseen text may cause.

    Texts of frequency f are missing among n documents with probability exp(-f n): with confidence
    CLEARLY they are rarer than -log(1 - CLEARLY) / n. They add _RARELY times as much.
    """
    return _RARELY * -math.log(1.0 - CLEARLY) / documents


def _standing(
    way: int, winner: int, seen: _Texts, dropped: bool, confidence: float, ways: int
) -> RaceStanding:
    # Dropped ways decoded fewer prompts. The winner is compared on the same prompts.
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
    """The winner with the numbers of texts that did not pick it."""
    speed, speedup = fresh.speed(winner.way), fresh.speedup(winner.way)
    return winner._replace(
        tokens_per_second=intervals.ratio(speed, confidence),
        speedup=intervals.ratio(speedup, confidence),
        gain=verdict_against(speedup, 1.0, confidence),
        documents=fresh.units(),
    )

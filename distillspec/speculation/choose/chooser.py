"""The protocol of choosers, what a round showed, and what it earned."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from distillspec.speculation.choose.configuration import Configuration


@dataclass(frozen=True)
class RoundOutcome:
    """What a round showed.

    tokens: emitted, before a limit or an end of text cut them. seconds: all that the round took.
    text: the committed tokens; the last `fresh` of them are this round's. chances: by each model
    that the chooser watches, for each of the fresh tokens, the probability that a token drafted by
    the model had been kept there.
    """

    tokens: int
    seconds: float
    text: Sequence[int] = ()
    fresh: int = 0
    chances: Mapping[str | None, Sequence[float]] = field(default_factory=dict)


class Chooser(Protocol):
    @property
    def watches(self) -> Collection[str | None]:
        """Draft models that must read all that the next round emits, so that `learn` is told."""
        ...

    def begin(self) -> None:
        """A new text begins."""
        ...

    def choose(self) -> Configuration:
        """The configuration of the next round."""
        ...

    def learn(self, outcome: RoundOutcome) -> None:
        """What the round just decoded showed."""
        ...

    def state(self) -> dict[str, Any]:
        """What it has learnt, as plain data, to be kept across prompts or processes."""
        ...

    def restore(self, state: Any, *, where: str) -> None:
        """Go on from what `state` gave; DistillSpecError if that is of another chooser or arms."""
        ...


@dataclass(frozen=True)
class Reward:
    """What a chooser maximises.

    most_tokens: L, the largest gamma among the arms: a round emits 1 .. L + 1 tokens.
    most_tokens_per_second: if given, tokens per second are counted instead, as a share of this (the
    perfect draft's speed, say): arms of unequal cost need that, since tokens per round always
    favour the largest gamma.
    """

    most_tokens: int
    most_tokens_per_second: float | None = None

    @property
    def counts_seconds(self) -> bool:
        return self.most_tokens_per_second is not None

    @property
    def range(self) -> float:
        """Between the least and the most an arm can earn in a round."""
        return float(self.most_tokens) if self.most_tokens_per_second is None else 1.0

    def mean(self, rounds: float, tokens: float, seconds: float) -> float:
        """What an arm has earned: a ratio of sums, not a mean of ratios."""
        if self.most_tokens_per_second is None:
            return tokens / rounds
        return min(1.0, tokens / seconds / self.most_tokens_per_second)

    def loss(self, tokens: int, seconds: float) -> float:
        """Of one round, in [0, 1]: 0 is the most that can be earned."""
        if self.most_tokens_per_second is None:
            return (self.most_tokens + 1 - tokens) / self.most_tokens
        return 1.0 - min(1.0, tokens / seconds / self.most_tokens_per_second)

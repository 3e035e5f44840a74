"""The protocol of choosers, and what a round earned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from distillspec.speculation.configuration import Configuration


class Chooser(Protocol):
    def choose(self) -> Configuration:
        """The configuration of the next round."""
        ...

    def learn(self, tokens: int, seconds: float) -> None:
        """What the round just decoded emitted, and how long it took."""
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

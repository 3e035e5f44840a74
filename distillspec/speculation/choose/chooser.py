"""The protocol of choosers, what a round showed them, and the reward they maximise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from distillspec.speculation.choose.configuration import Configuration


@dataclass(frozen=True)
class RoundOutcome:
    """What a round showed.

    Attributes:
        tokens: Tokens emitted, before a limit or an end of text cut them.
        seconds: Time of the round from choosing to learning.
        text: The committed tokens; the last `fresh` of them are this round's.
        fresh: Tokens of this round that joined the text.
        keep_probabilities: For each draft model that the chooser watches, one probability per fresh
            token: that verification had kept this token if the model had drafted it.
        drafted: Tokens of the longest drafted sequence.
    """

    tokens: int
    seconds: float
    text: Sequence[int] = ()
    fresh: int = 0
    keep_probabilities: Mapping[str | None, Sequence[float]] = field(default_factory=dict)
    drafted: int = 0


class Chooser(Protocol):
    """Chooses the configuration of each round, and learns from what the round showed."""

    @property
    def watches(self) -> Collection[str | None]:
        """Draft models that read all tokens of a round: `learn` gets their keep probabilities."""
        ...

    def begin(self) -> None:
        """A new text begins."""
        ...

    def choose(self) -> Configuration:
        """The configuration of the next round."""
        ...

    def learn(self, outcome: RoundOutcome) -> None:
        """Learn from the round that was decoded last."""
        ...

    def state(self) -> dict[str, Any]:
        """What the chooser has learnt, as plain data that outlives a prompt or process."""
        ...

    def restore(self, state: Any, *, where: str) -> None:
        """Continue from what `state` returned.

        Raises:
            DistillSpecError: The state belongs to another chooser or to other arms.
        """
        ...


@dataclass(frozen=True)
class Reward:
    """What a chooser maximises: tokens per round or tokens per second.

    Tokens per round always favour the largest gamma, so arms of unequal cost need tokens per
    second.

    Attributes:
        most_tokens: L, the largest gamma among the arms; a round emits 1 to L + 1 tokens.
        most_tokens_per_second: If given, the reward is tokens per second as a share of this number,
            for example of the perfect draft's speed.
    """

    most_tokens: int
    most_tokens_per_second: float | None = None

    @property
    def counts_seconds(self) -> bool:
        return self.most_tokens_per_second is not None

    @property
    def range(self) -> float:
        """Distance between the lowest and the highest reward of a round."""
        return float(self.most_tokens) if self.most_tokens_per_second is None else 1.0

    def mean(self, rounds: float, tokens: float, seconds: float) -> float:
        """Mean reward of an arm: a ratio of sums, not a mean of ratios."""
        if self.most_tokens_per_second is None:
            return tokens / rounds
        return min(1.0, tokens / seconds / self.most_tokens_per_second)

    def loss(self, tokens: float, seconds: float) -> float:
        """Loss of one round, in [0, 1]; 0 is the highest possible reward."""
        if self.most_tokens_per_second is None:
            return (self.most_tokens + 1 - tokens) / self.most_tokens
        return 1.0 - min(1.0, tokens / seconds / self.most_tokens_per_second)

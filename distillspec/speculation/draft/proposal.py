"""What a draft hands to verification, and the protocols of whatever makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.result import Rule, VerifyResult


@dataclass(frozen=True)
class DraftContext:
    """What a draft is made from.

    text: all committed tokens, on the host, at least one. head: long [1], the last of them, where
    the models are. model: the runner that drafts, whose cache holds a beginning of the text without
    the head; None for a rule that needs none. vocab_size: V, of the distribution each token is
    drawn from.
    """

    text: Sequence[int]
    head: Tensor
    model: Runner | None
    vocab_size: int
    policy: SamplingPolicy
    chance: RandomSource
    stop: StopRule

    @property
    def runner(self) -> Runner:
        """The model, for a rule that needs one."""
        assert self.model is not None, "this rule drafts with a model"
        return self.model

    def pending(self) -> Tensor:
        """The committed tokens that the model has not read, long [n], n >= 1: many after a rest."""
        held = self.runner.length
        if held == len(self.text) - 1:
            return self.head
        return self.head.new_tensor(self.text[held:])


class Proposal(Protocol):
    """Drafted tokens: how the target reads them, how they are judged, what of them is kept."""

    @property
    def steps(self) -> int:
        """Forwards of the draft."""
        ...

    @property
    def drafted(self) -> int:
        """Tokens drawn from the draft."""
        ...

    @property
    def length(self) -> int:
        """Tokens of the longest draft."""
        ...

    @property
    def q(self) -> Tensor:
        """[n, V], the distribution that each drafted token was drawn from."""
        ...

    def score(self, target: Runner, head: Tensor) -> Tensor:
        """Feed the target head (long [1], the last committed token) and the draft.

        -> logits [contexts, V] of the next token after each of them.
        """
        ...

    def verify(self, rule: Rule, p: Tensor, chance: RandomSource) -> VerifyResult:
        """What the rule keeps, given the target's distribution p after each context."""
        ...

    def commit(
        self, target: Runner, draft: Runner | None, committed: int, verdict: VerifyResult
    ) -> None:
        """Leave what was kept in the caches, after the `committed` tokens before this round.

        draft: the model it was drafted with, if there was one.
        """
        ...

    def is_whole(self, verdict: VerifyResult) -> bool:
        """Whether a draft was kept to its end: the last token is then a bonus."""
        ...


class DraftRule(Protocol):
    def slots(self, gamma: int) -> int:
        """Places in the target's cache that drafts of gamma tokens take, at most."""
        ...

    def propose(self, basis: DraftContext, gamma: int) -> Proposal:
        """Drafts of at most gamma tokens after the basis' text."""
        ...

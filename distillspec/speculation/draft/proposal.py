"""What a draft hands to verification, and the protocols of draft rules and proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.result import VerificationRule, VerifyResult


@dataclass(frozen=True)
class DraftContext:
    """What a draft is made from.

    Attributes:
        text: All committed tokens, on the host, at least one.
        head: The last of them, long [1], on the device of the models.
        model: The runner that drafts; its cache holds a beginning of the text without the head.
            None for a rule that needs no model.
        vocab_size: V, the size of each q.
        policy: What makes q of the draft's logits.
        random_source: The source of the draws.
        stop: When drafting stops early.
    """

    text: Sequence[int]
    head: Tensor
    model: Runner | None
    vocab_size: int
    policy: SamplingPolicy
    random_source: RandomSource
    stop: StopRule

    @property
    def runner(self) -> Runner:
        """The model, for a rule that needs it."""
        assert self.model is not None, "this rule drafts with a model"
        return self.model

    def pending(self) -> Tensor:
        """The committed tokens that the model has not read, long [n], n >= 1.

        They are many where other drafts decoded the rounds before.
        """
        held = self.runner.length
        # The usual case: only the head is unread, and it is on the device already.
        if held == len(self.text) - 1:
            return self.head
        return self.head.new_tensor(self.text[held:])


class Proposal(Protocol):
    """Drafted tokens: how the target reads them, how they are verified, and what is kept."""

    @property
    def steps(self) -> int:
        """Forwards of the draft model."""
        ...

    @property
    def drafted(self) -> int:
        """Tokens drawn from the draft."""
        ...

    @property
    def length(self) -> int:
        """Tokens of the longest drafted sequence."""
        ...

    @property
    def q(self) -> Tensor:
        """The distribution that each drafted token was drawn from, shape [n, V]."""
        ...

    def score(self, target: Runner, head: Tensor) -> Tensor:
        """Feed the drafted tokens to the target.

        Args:
            target: Its cache holds the text without the head.
            head: The last committed token, long [1].

        Returns:
            Logits [contexts, V] of the next token after the head and after each drafted token.
        """
        ...

    def verify(
        self, rule: VerificationRule, p: Tensor, random_source: RandomSource
    ) -> VerifyResult:
        """What the rule keeps, given the target's distribution p after each context."""
        ...

    def commit(
        self, target: Runner, draft: Runner | None, committed: int, result: VerifyResult
    ) -> None:
        """Leave what was kept in the caches.

        Args:
            target: The runner that scored the proposal.
            draft: The model that drafted it, if there is one.
            committed: Tokens of the text before this round.
            result: What verification kept.
        """
        ...

    def is_whole(self, result: VerifyResult) -> bool:
        """Whether a draft was kept to its end, so that the last token is a bonus."""
        ...


class DraftRule(Protocol):
    """Makes a proposal of at most gamma tokens."""

    def slots(self, gamma: int) -> int:
        """Slots of the target's cache that drafts of gamma tokens take, at most."""
        ...

    def propose(self, context: DraftContext, gamma: int) -> Proposal:
        """Draft at most gamma tokens after the context's text."""
        ...

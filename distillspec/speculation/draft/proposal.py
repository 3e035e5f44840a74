"""What a draft hands to verification, and the protocols of whatever makes it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from distillspec.speculation.chance import Chance
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.verdict import Rule, Verdict


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

    def score(self, target: Runner, head: Tensor) -> Tensor:
        """Feed the target head (long [1], the last committed token) and the draft.

        -> logits [contexts, V] of the next token after each of them.
        """
        ...

    def judge(self, rule: Rule, p: Tensor, chance: Chance) -> Verdict:
        """What the rule keeps, given the target's law p after each context."""
        ...

    def keep(self, target: Runner, draft: Runner, committed: int, verdict: Verdict) -> None:
        """Leave what was kept in both caches, after the `committed` tokens before this round."""
        ...

    def is_whole(self, verdict: Verdict) -> bool:
        """Whether a draft was kept to its end: the last token is then a bonus."""
        ...


class DraftRule(Protocol):
    def slots(self, gamma: int) -> int:
        """Places in the target's cache that drafts of gamma tokens take, at most."""
        ...

    def propose(
        self,
        runner: Runner,
        pending: Tensor,
        gamma: int,
        policy: SamplingPolicy,
        chance: Chance,
        stop: StopRule,
    ) -> Proposal:
        """Drafts of at most gamma tokens after `pending`, the long [n] committed ones not fed."""
        ...

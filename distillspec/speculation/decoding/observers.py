"""Observers of the decode loop: they learn from a round or record it, and change no token."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from distillspec.speculation.choose.chooser import Chooser, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.draft.proposal import Proposal
from distillspec.speculation.records import RoundRecord, TokenStatus
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.trajectory import watch
from distillspec.speculation.verify.result import VerifyResult


class DecodedRound(NamedTuple):
    """A round after its commit.

    Attributes:
        configuration: The configuration that decoded it.
        gamma: The draft length it was allowed, at most the configuration's.
        proposal: What was drafted.
        p: The target's distribution after each context of the proposal, shape [contexts, V].
        result: What verification kept.
        text: All committed tokens; the round's own come last.
        emitted: Tokens of the round that joined the text.
        room: Tokens that the length limit left before the round.
    """

    configuration: Configuration
    gamma: int
    proposal: Proposal
    p: Tensor
    result: VerifyResult
    text: Sequence[int]
    emitted: int
    room: int

    def record(self) -> RoundRecord:
        """The counts of the round."""
        return RoundRecord(
            drafted=self.proposal.drafted,
            accepted=self.result.accepted,
            emitted=self.emitted,
            draft_steps=self.proposal.steps,
            cut=(
                self.emitted < len(self.result.tokens)
                # The limit leaves no room for a full block of gamma + 1 tokens.
                or self.room <= self.configuration.gamma
                # A model's cache or context length allowed only a shorter draft.
                or self.gamma < self.configuration.gamma
            ),
        )

    def statuses(self) -> list[TokenStatus]:
        """How each emitted token came to be."""
        if self.proposal.drafted == 0:
            return [TokenStatus.PLAIN][: self.emitted]
        is_whole = self.proposal.is_whole(self.result)
        last = TokenStatus.BONUS if is_whole else TokenStatus.CORRECTED
        return ([TokenStatus.ACCEPTED] * self.result.accepted + [last])[: self.emitted]


class RoundObserver:
    """Follows the rounds of a decoder. An observer overrides the events that it needs."""

    def round_started(self, began: float) -> None:
        """The configuration is chosen and drafting starts; the round began at `began`, in s."""

    def drafted(self, draft: Runner | None) -> None:
        """The proposal is made, by this draft model if there is one."""

    def verified(self, target: Runner) -> None:
        """The target has verified the proposal, and both caches hold what was kept."""

    def committed(self, decoded: DecodedRound, record: RoundRecord) -> RoundRecord:
        """The text holds the round's tokens. Returns the record, with what the observer adds."""
        return record


class Observers(RoundObserver):
    """Several observers in their order, as one."""

    def __init__(self, *observers: RoundObserver) -> None:
        self._observers = observers

    def round_started(self, began: float) -> None:
        for observer in self._observers:
            observer.round_started(began)

    def drafted(self, draft: Runner | None) -> None:
        for observer in self._observers:
            observer.drafted(draft)

    def verified(self, target: Runner) -> None:
        for observer in self._observers:
            observer.verified(target)

    def committed(self, decoded: DecodedRound, record: RoundRecord) -> RoundRecord:
        for observer in self._observers:
            record = observer.committed(decoded, record)
        return record


class StopRuleFeedback(RoundObserver):
    """Shows each stop rule how much of its draft was accepted."""

    def committed(self, decoded: DecodedRound, record: RoundRecord) -> RoundRecord:
        stop = decoded.configuration.stop
        stop.learn(decoded.proposal.length, decoded.result.accepted, decoded.gamma)
        return record


class ChooserFeedback(RoundObserver):
    """Shows the chooser what each round emitted, in what time, and what other drafts gave it."""

    def __init__(
        self, chooser: Chooser, drafts: Mapping[str | None, Runner], policy: SamplingPolicy
    ) -> None:
        self._chooser, self._drafts, self._policy = chooser, drafts, policy
        self._began = 0.0

    def round_started(self, began: float) -> None:
        self._began = began

    def committed(self, decoded: DecodedRound, record: RoundRecord) -> RoundRecord:
        # Watching is a cost of this chooser, so the round's seconds include it.
        watched = watch(
            self._chooser.watches,
            self._drafts,
            decoded.text,
            decoded.p[: decoded.emitted],
            decoded.proposal.q,
            self._policy,
        )
        self._chooser.learn(
            RoundOutcome(
                tokens=len(decoded.result.tokens),
                seconds=time.perf_counter() - self._began,
                drafted=decoded.proposal.length,
                text=decoded.text,
                fresh=decoded.emitted,
                keep_probabilities=watched.keep_probabilities,
            )
        )
        return record._replace(draft_steps=record.draft_steps + watched.forwards)

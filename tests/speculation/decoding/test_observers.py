"""Observers see each round after its commit, in their order, and may add to its record."""

from __future__ import annotations

from typing import Any

import torch

from distillspec.speculation.choose.chooser import RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.decoding.observers import (
    ChooserFeedback,
    DecodedRound,
    Observers,
    RoundObserver,
    StopRuleFeedback,
)
from distillspec.speculation.draft.chain import Chain, ChainDraft
from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.records import RoundRecord, TokenStatus
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.token import verify_token

V = 4


def a_round(
    drafted: int, tokens: list[int], *, emitted: int | None = None, **parts: Any
) -> DecodedRound:
    """A chain of `drafted` tokens of which verification kept all but the last of `tokens`."""
    settings: dict[str, Any] = {"gamma": 3, "room": 9, "stop": FixedLength()} | parts
    proposal = Chain(torch.zeros(drafted, dtype=torch.long), torch.zeros(drafted, V), drafted)
    return DecodedRound(
        configuration=Configuration("c", 3, ChainDraft(), settings["stop"], verify_token),
        gamma=settings["gamma"],
        proposal=proposal,
        p=torch.zeros(drafted + 1, V),
        result=VerifyResult(tokens),
        text=[7, *tokens],
        emitted=len(tokens) if emitted is None else emitted,
        room=settings["room"],
    )


def test_a_record_counts_what_was_drafted_kept_and_emitted() -> None:
    assert a_round(3, [1, 2]).record() == RoundRecord(3, 1, 2, 3, cut=False)


def test_a_round_is_cut_by_an_end_of_text_a_length_limit_or_a_full_cache() -> None:
    assert a_round(3, [1, 2, 3], emitted=2).record().cut
    assert a_round(3, [1, 2], room=3).record().cut
    assert not a_round(3, [1, 2], room=4).record().cut
    assert a_round(2, [1, 2], gamma=2).record().cut


def test_each_emitted_token_has_the_status_of_how_it_came_to_be() -> None:
    accepted, corrected = TokenStatus.ACCEPTED, TokenStatus.CORRECTED
    assert a_round(3, [1, 2, 3]).statuses() == [accepted, accepted, corrected]
    assert a_round(2, [1, 2, 3]).statuses() == [accepted, accepted, TokenStatus.BONUS]
    assert a_round(2, [1, 2, 3], emitted=1).statuses() == [accepted]
    assert a_round(0, [1]).statuses() == [TokenStatus.PLAIN]


class Adding(RoundObserver):
    """Adds its number of forwards, after all that was added before it."""

    def __init__(self, forwards: int) -> None:
        self.forwards = forwards
        self.seen: list[str] = []

    def round_started(self, began: float) -> None:
        self.seen.append(f"started {began:g}")

    def drafted(self, draft: Any) -> None:
        self.seen.append("drafted")

    def verified(self, target: Any) -> None:
        self.seen.append("verified")

    def committed(self, decoded: DecodedRound, record: RoundRecord) -> RoundRecord:
        self.seen.append(f"committed {record.draft_steps}")
        return record._replace(draft_steps=record.draft_steps + self.forwards)


def test_several_observers_see_every_event_and_each_the_record_of_the_one_before() -> None:
    first, second = Adding(1), Adding(10)
    observers = Observers(first, RoundObserver(), second)
    decoded = a_round(3, [1, 2])
    observers.round_started(2.5)
    observers.drafted(None)
    observers.verified(None)  # type: ignore[arg-type]
    assert observers.committed(decoded, decoded.record()).draft_steps == 14
    assert first.seen == ["started 2.5", "drafted", "verified", "committed 3"]
    assert second.seen == ["started 2.5", "drafted", "verified", "committed 4"]


class Noting(StopRule):
    def __init__(self) -> None:
        self.learnt: list[tuple[int, int, int]] = []

    def learn(self, length: int, accepted: int, gamma: int) -> None:
        self.learnt.append((length, accepted, gamma))


def test_the_stop_rule_of_a_round_learns_the_length_what_was_kept_and_the_gamma() -> None:
    stop = Noting()
    decoded = a_round(2, [1, 2], stop=stop, gamma=2)
    assert StopRuleFeedback().committed(decoded, decoded.record()) == decoded.record()
    assert stop.learnt == [(2, 1, 2)]


class Listening(Fixed):
    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self.outcomes: list[RoundOutcome] = []

    def learn(self, outcome: RoundOutcome) -> None:
        self.outcomes.append(outcome)


def test_a_chooser_learns_all_tokens_of_a_round_even_those_that_were_cut_off() -> None:
    decoded = a_round(3, [1, 2, 3], emitted=2)
    chooser = Listening(decoded.configuration)
    observer = ChooserFeedback(chooser, {}, SamplingPolicy())
    observer.round_started(0.0)
    assert observer.committed(decoded, decoded.record()) == decoded.record()
    (outcome,) = chooser.outcomes
    assert (outcome.tokens, outcome.fresh, outcome.text) == (3, 2, decoded.text)
    assert outcome.drafted == decoded.proposal.length
    assert outcome.seconds > 0.0

"""What the record of an audited round holds: checked against tables whose entropies are known."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.decoding.audit import Audit
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.decoding.observers import DecodedRound
from distillspec.speculation.draft.chain import Chain, ChainDraft
from distillspec.speculation.draft.entropy import AdaEDL
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.records import Generation, RoundAudit
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.kseq import verify_kseq
from distillspec.speculation.verify.result import VerifyResult
from distillspec.speculation.verify.token import verify_token
from tests.speculation.bigram import BigramRunner

V = 5
POLICIES = [SamplingPolicy(0.0), SamplingPolicy(1.0), SamplingPolicy(0.5, top_k=2)]


def table(seed: int) -> Tensor:
    return torch.randn(V, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawing() -> GeneratorSource:
    return GeneratorSource(torch.Generator().manual_seed(0))


def a_configuration(gamma: int, **parts: Any) -> Configuration:
    rules = {"draft": ChainDraft(), "stop": FixedLength(), "verify": verify_token} | parts
    return Configuration("mine", gamma, **rules)


def decoded(way: Configuration, policy: SamplingPolicy, *, audited: bool = True) -> Generation:
    decoder = SpeculativeDecoder(
        BigramRunner(table(0), capacity=64),
        BigramRunner(table(1), capacity=64),
        way,
        policy,
        GeneratorSource(torch.Generator().manual_seed(3)),
        audited=audited,
    )
    return decoder.decode(torch.tensor([0, 1]), max_new_tokens=24)


def entropy(token: int, policy: SamplingPolicy) -> float:
    """Of the draft after `token`, by hand: tempered (at T = 0 by 1), never filtered."""
    distribution = (table(1)[token] / (policy.temperature or 1.0)).softmax(-1)
    return -sum(float(p) * math.log(float(p)) for p in distribution)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_first_entropy_of_a_round_is_of_the_drafts_distribution_after_the_last_token(
    policy: SamplingPolicy,
) -> None:
    text = decoded(a_configuration(3), policy)
    last = 1
    at = 0
    for record in text.rounds:
        assert record.audit is not None
        assert record.audit.arm == "mine@3"
        assert len(record.audit.entropies) == record.drafted == 3
        assert record.audit.entropies[0] == pytest.approx(entropy(last, policy))
        at += record.emitted
        last = text.tokens[at - 1]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_entropies_of_kept_tokens_are_those_of_the_distributions_they_were_drawn_from(
    policy: SamplingPolicy,
) -> None:
    text = decoded(a_configuration(4), policy)
    before = [1, *text.tokens]
    at = 0
    for record in text.rounds:
        assert record.audit is not None
        accepted = min(record.accepted, record.emitted)
        expected = [entropy(before[at + offset], policy) for offset in range(accepted)]
        assert record.audit.entropies[:accepted] == pytest.approx(expected)
        at += record.emitted


def test_a_draft_that_stops_early_has_an_entropy_for_each_token_it_drew_and_no_more() -> None:
    text = decoded(a_configuration(6, stop=AdaEDL(0.45, 0.9)), SamplingPolicy(1.0))
    assert len({record.drafted for record in text.rounds}) > 1
    for record in text.rounds:
        assert record.audit is not None
        assert len(record.audit.entropies) == record.drafted


def test_several_sequences_have_one_entropy_a_position_their_mean() -> None:
    policy = SamplingPolicy(1.0)
    way = a_configuration(2, draft=SequencesDraft(3), verify=verify_kseq)
    possible = [entropy(token, policy) for token in range(V)]
    for record in decoded(way, policy).rounds:
        assert record.audit is not None
        assert record.drafted == 6
        first, second = record.audit.entropies
        assert any(first == pytest.approx(value) for value in possible)
        assert min(possible) <= second <= max(possible)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_auditing_changes_no_token_and_without_it_nothing_is_recorded(
    policy: SamplingPolicy,
) -> None:
    for stop in (FixedLength, lambda: AdaEDL(0.45, 0.9)):  # the second learns: one for each
        audited = decoded(a_configuration(3, stop=stop()), policy)
        plain = decoded(a_configuration(3, stop=stop()), policy, audited=False)
        assert audited.tokens == plain.tokens
        assert audited.statuses == plain.statuses
        assert all(record.audit is None for record in plain.rounds)
        assert [record._replace(audit=None) for record in audited.rounds] == plain.rounds


def audit_of(watcher: Audit) -> RoundAudit:
    """What the observer adds to the record of a round that drafted nothing."""
    nothing = Chain(torch.zeros(0, dtype=torch.long), torch.zeros(0, V), steps=0)
    result = VerifyResult([0])
    decoded = DecodedRound(a_configuration(1), 1, nothing, torch.zeros(1, V), result, [0], 1, 1)
    record = watcher.committed(decoded, decoded.record())
    assert record._replace(audit=None) == decoded.record()
    assert record.audit is not None
    return record.audit


def test_the_parts_of_a_round_add_up_to_its_time() -> None:
    runner = BigramRunner(table(0), capacity=8)
    watcher = Audit(SamplingPolicy(1.0))
    began = time.perf_counter()
    time.sleep(0.02)
    watcher.round_started(began)
    time.sleep(0.01)
    watcher.drafted(runner)
    time.sleep(0.03)
    watcher.verified(runner)
    audit = audit_of(watcher)
    total = time.perf_counter() - began
    assert audit.entropies == ()
    assert audit.draft_seconds >= 0.01
    assert audit.verify_seconds >= 0.03
    assert audit.other_seconds >= 0.02
    parts = audit.draft_seconds + audit.verify_seconds + audit.other_seconds
    assert 0.06 <= parts <= total


def test_logits_that_a_runner_overwrites_are_remembered_as_they_were() -> None:
    watcher = Audit(SamplingPolicy(1.0))
    logits = torch.tensor([0.0, 0.0, -torch.inf])
    watcher.policy.draw_with_distribution(logits, drawing())
    logits.fill_(1.0)
    (nats,) = audit_of(watcher).entropies
    assert nats == pytest.approx(math.log(2.0))


def test_of_several_rows_the_mean_entropy_is_recorded() -> None:
    watcher = Audit(SamplingPolicy(0.0))
    rows = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, -torch.inf, -torch.inf]])
    watcher.policy.draw_with_distribution(rows, drawing())
    assert audit_of(watcher).entropies == pytest.approx([math.log(2.0) / 2])


def test_a_round_holds_no_entropy_of_the_round_before() -> None:
    watcher = Audit(SamplingPolicy(1.0))
    watcher.policy.draw_with_distribution(torch.zeros(V), drawing())
    watcher.round_started(0.0)
    assert audit_of(watcher).entropies == ()

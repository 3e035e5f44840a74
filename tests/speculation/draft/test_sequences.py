from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from distillspec.speculation.draft.sequences import Bundle, SequencesDraft
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.result import VerifyResult
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import Branches, HistoryRunner, context_of, walk

TABLE = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def bundle(
    rule: SequencesDraft, runner: BigramRunner, random_source: Branches, gamma: int
) -> Bundle:
    runner.reset()
    runner.feed(torch.tensor([[1]]))
    return rule.propose(context_of(runner, [0, 2], random_source), gamma)


def sequences(drafted: Bundle, K: int) -> list[list[int]]:
    """The sequences again, from who drew what: drawing order is the order of the sequences."""
    waiting = [list(nodes) for nodes in drafted.tree.drawn]
    result = []
    for _ in range(K):
        context, tokens = 0, []
        while waiting[context]:
            node = waiting[context].pop(0)
            tokens.append(drafted.tree.tokens[node])
            context = node + 1
        result.append(tokens)
    return result


@pytest.mark.parametrize(("K", "gamma"), [(1, 3), (2, 2), (3, 1)])
def test_sequences_are_independent_draws_from_the_q_they_come_with(K: int, gamma: int) -> None:
    total = 0.0
    for drafted, branches in walk(
        lambda random_source: bundle(SequencesDraft(K), HistoryRunner(TABLE), random_source, gamma)
    ):
        product = 1.0
        for k, tokens in enumerate(sequences(drafted, K)):
            text = torch.tensor([[1, 0, 2, *tokens]])
            expected = SamplingPolicy().distribution(HistoryRunner(TABLE).feed(text)[0, 2:-1])
            assert torch.allclose(drafted.q[k * gamma : (k + 1) * gamma], expected, atol=1e-14)
            at = torch.tensor(tokens).unsqueeze(1)
            product *= math.prod(expected.gather(1, at).flatten().tolist())
        assert branches.weight == pytest.approx(product, rel=1e-12)
        total += branches.weight
    assert total == pytest.approx(1.0, abs=1e-12)


def test_distinct_sequences_begin_with_different_tokens_drawn_without_replacement() -> None:
    runner = HistoryRunner(TABLE)
    q = SamplingPolicy().distribution(runner.feed(torch.tensor([[1, 0, 2]]))[0, -1]).tolist()
    distribution: Counter[tuple[int, ...]] = Counter()
    for drafted, branches in walk(
        lambda random_source: bundle(
            SequencesDraft(2, distinct=True), HistoryRunner(TABLE), random_source, 1
        )
    ):
        distribution[tuple(drafted.tree.tokens)] += branches.weight  # type: ignore[assignment]
    for (first, second), weight in distribution.items():
        assert first != second
        assert weight == pytest.approx(q[first] * q[second] / (1.0 - q[first]), rel=1e-12)


def test_a_draft_that_can_give_only_two_tokens_gives_two_distinct_ones() -> None:
    table = TABLE.clone()
    table[:, 2] = -torch.inf
    drafted = bundle(SequencesDraft(3, distinct=True), HistoryRunner(table), Branches(), 1)
    assert sorted(drafted.tree.tokens) == [0, 1]


def test_after_a_verdict_both_caches_hold_the_kept_path() -> None:
    for drafted, _ in walk(
        lambda random_source: (
            draft := HistoryRunner(TABLE),
            bundle(SequencesDraft(3), draft, random_source, 2),
        )
    ):
        draft, proposal = drafted
        target = HistoryRunner(TABLE)
        target.feed(torch.tensor([[1, 0]]))
        proposal.score(target, torch.tensor([2]))
        for tokens in sequences(proposal, 3):
            target_copy, draft_copy = (_copy(runner) for runner in (target, draft))
            proposal.commit(target_copy, draft_copy, 3, VerifyResult([*tokens, 0]))
            assert target_copy.tokens.tolist() == [[1, 0, 2, *tokens]]
            assert draft_copy.tokens.tolist() == [[1, 0, 2, tokens[0]]]
            assert proposal.is_whole(VerifyResult([*tokens, 0]))
            assert not proposal.is_whole(VerifyResult([tokens[0], 0]))


def _copy(runner: HistoryRunner) -> HistoryRunner:
    copy = HistoryRunner(TABLE)
    copy.feed(runner.tokens)
    return copy


def test_the_target_scores_every_path_as_if_it_were_alone() -> None:
    proposal = bundle(SequencesDraft(3), HistoryRunner(TABLE), _Alternating(), 3)
    target = HistoryRunner(TABLE)
    target.feed(torch.tensor([[1, 0]]))
    logits = proposal.score(target, torch.tensor([2]))
    assert len(logits) == len(proposal.tree) + 1
    for context in range(len(logits)):
        path = [proposal.tree.tokens[node] for node in proposal.tree.path(context)]
        alone = HistoryRunner(TABLE).feed(torch.tensor([[1, 0, 2, *path]]))[0, -1]
        assert torch.equal(logits[context], alone)


class _Alternating(Branches):
    """Rows take turns among the tokens, so that the sequences part."""

    def draw(self, weights: Tensor) -> Tensor:
        return torch.arange(weights.shape[0]) % weights.shape[1]


def test_each_sequence_stops_by_itself() -> None:
    class NotAfterZero(StopRule):
        def stops(
            self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None
        ) -> bool:
            return bool((logits == TABLE[0]).all())

    runner = BigramRunner(TABLE)
    proposal = SequencesDraft(3).propose(
        context_of(runner, [1], _Alternating(), stop=NotAfterZero()), 3
    )
    assert len(sequences(proposal, 3)[0]) == 1
    assert proposal.drafted < 9
    assert len(proposal.slots) == len(proposal.tree)


def test_without_room_nothing_is_drafted_and_nothing_is_fed() -> None:
    runner = BigramRunner(TABLE)
    proposal = SequencesDraft(2).propose(context_of(runner, [1], Branches()), 0)
    assert (proposal.drafted, proposal.steps, runner.length) == (0, 0, 0)

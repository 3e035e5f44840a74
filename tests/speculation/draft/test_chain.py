from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import Branches, HistoryRunner, context_of, walk

TABLE = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("policy", [SamplingPolicy(), SamplingPolicy(0.6, top_k=2)])
def test_the_distribution_of_the_drafted_tokens_is_the_product_of_the_q_they_come_with(
    policy: SamplingPolicy,
) -> None:
    total = 0.0

    def draft(random_source: Branches) -> tuple[Tensor, Tensor]:
        runner = HistoryRunner(TABLE)
        runner.feed(torch.tensor([[1]]))
        proposal = ChainDraft().propose(context_of(runner, [0, 2], random_source, policy=policy), 3)
        return proposal.tokens, proposal.q

    for (tokens, q), branches in walk(draft):
        text = torch.tensor([[1, 0, 2, *tokens.tolist()]])
        expected = policy.distribution(HistoryRunner(TABLE).feed(text)[0, 2:5])
        assert torch.allclose(q, expected, atol=1e-14)
        product = math.prod(expected.gather(1, tokens.unsqueeze(1)).flatten().tolist())
        assert branches.weight == pytest.approx(product, rel=1e-12)
        total += branches.weight
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("pending", [[1], [1, 2]])
@pytest.mark.parametrize("gamma", [1, 2, 5])
def test_all_but_the_last_drafted_token_are_fed_once(pending: list[int], gamma: int) -> None:
    runner = BigramRunner(TABLE)
    proposal = ChainDraft().propose(context_of(runner, pending, Branches()), gamma)
    assert runner.tokens.tolist() == [[*pending, *proposal.tokens.tolist()[:-1]]]
    assert proposal.steps == gamma == len(proposal.tokens)


def test_without_room_nothing_is_drafted_and_nothing_is_fed() -> None:
    runner = BigramRunner(TABLE)
    proposal = ChainDraft().propose(context_of(runner, [1], Branches()), 0)
    assert (len(proposal.tokens), proposal.q.shape, proposal.steps) == (0, (0, 3), 0)
    assert runner.length == 0


def test_a_stop_rule_sees_the_logits_of_the_first_token_and_draws_it_in_any_case() -> None:
    seen: list[Tensor] = []

    class AtOnce(StopRule):
        def begins(
            self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None
        ) -> None:
            seen.append(logits)

        def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
            assert logits is seen[0]
            return True

    runner = BigramRunner(TABLE)
    proposal = ChainDraft().propose(context_of(runner, [1], Branches(), stop=AtOnce()), 5)
    assert (len(proposal.tokens), proposal.steps, len(seen)) == (1, 1, 1)
    assert torch.equal(seen[0], TABLE[1])


def test_a_stop_rule_ends_the_draft_after_the_forward_it_looked_at() -> None:
    class AfterTwoLooks(StopRule):
        looks = 0

        def stops(
            self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None
        ) -> bool:
            self.looks += 1
            return self.looks == 2

    runner = BigramRunner(TABLE)
    proposal = ChainDraft().propose(context_of(runner, [1], Branches(), stop=AfterTwoLooks()), 5)
    assert (len(proposal.tokens), proposal.steps) == (2, 3)
    assert runner.tokens.tolist() == [[1, *proposal.tokens.tolist()]]


class Telling(BigramRunner):
    """Computes a made-up entropy: the number of tokens it holds."""

    computes_entropy = True

    def feed_for_entropy(self, token: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        self.temperature = temperature
        return self.feed(token), torch.tensor(float(self.length))


@pytest.mark.parametrize(("temperature", "read_at"), [(0.0, 1.0), (0.5, 0.5)])
def test_a_rule_gets_the_entropy_that_the_model_computes(
    temperature: float, read_at: float
) -> None:
    class AtThree(StopRule):
        reads_entropy = True

        def stops(
            self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None
        ) -> bool:
            return entropy is not None and float(entropy) == 3.0

    runner, policy = Telling(TABLE), SamplingPolicy(temperature)
    context = context_of(runner, [1], Branches(), stop=AtThree(), policy=policy)
    proposal = ChainDraft().propose(context, 8)
    assert (proposal.drafted, proposal.steps, runner.temperature) == (2, 3, read_at)


def test_a_model_is_not_asked_for_the_entropy_in_vain() -> None:
    runner = Telling(TABLE)
    ChainDraft().propose(context_of(runner, [1], Branches()), 3)
    assert not hasattr(runner, "temperature")

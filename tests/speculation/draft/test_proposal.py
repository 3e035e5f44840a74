from __future__ import annotations

import pytest
import torch

from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.lookup import LookupDraft
from distillspec.speculation.draft.nothing import NoDraft
from distillspec.speculation.draft.proposal import DraftRule
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import Branches, context_of


def test_a_proposal_holds_a_distribution_for_each_token_that_could_have_given_it() -> None:
    rule: DraftRule = ChainDraft()
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    runner = BigramRunner(torch.randn(30, 30, generator=torch.Generator().manual_seed(0)))
    proposal = rule.propose(
        context_of(runner, [1], random_source, policy=SamplingPolicy(top_k=3)), 5
    )
    assert proposal.q.shape == (5, 30)
    assert (proposal.q.gather(1, proposal.tokens.unsqueeze(1)) > 0.0).all()


@pytest.mark.parametrize("pending", [[2], [2, 0], [2, 0, 1, 1]])
def test_what_the_model_has_not_read_is_the_end_of_the_text(pending: list[int]) -> None:
    runner = BigramRunner(torch.zeros(3, 3))
    runner.feed(torch.tensor([[1, 0]]))
    context = context_of(runner, pending, GeneratorSource(torch.Generator()))
    assert context.text == [1, 0, *pending]
    assert context.head.tolist() == pending[-1:]
    assert context.pending().tolist() == pending


@pytest.mark.parametrize(
    "rule",
    [ChainDraft(), SequencesDraft(2), LookupDraft(2), NoDraft()],
    ids=lambda rule: type(rule).__name__,
)
def test_no_rule_drafts_a_negative_number_of_tokens(rule: DraftRule) -> None:
    with pytest.raises(AssertionError):
        rule.propose(context_of(BigramRunner(torch.zeros(3, 3)), [1], Branches()), -1)

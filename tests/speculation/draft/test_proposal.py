from __future__ import annotations

import torch

from distillspec.speculation.chance import GeneratorChance
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.proposal import DraftRule
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.runner import BigramRunner
from distillspec.speculation.sampling import SamplingPolicy


def test_a_proposal_holds_a_distribution_for_each_token_that_could_have_given_it() -> None:
    rule: DraftRule = ChainDraft()
    chance = GeneratorChance(torch.Generator().manual_seed(0))
    runner = BigramRunner(torch.randn(30, 30, generator=torch.Generator().manual_seed(0)))
    policy = SamplingPolicy(top_k=3)
    proposal = rule.propose(runner, torch.tensor([1]), 5, policy, chance, FixedLength())
    assert proposal.q.shape == (5, 30)
    assert (proposal.q.gather(1, proposal.tokens.unsqueeze(1)) > 0.0).all()

from __future__ import annotations

import torch

from distillspec.models.sampling.forward import forward_of
from distillspec.models.sampling.speculative_rounds import SpeculativeRounds
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy
from tests.models.conftest import tiny_model
from tests.models.sampling.test_generate import prompts_of


@torch.no_grad()
def test_a_draft_that_is_the_target_keeps_every_token() -> None:
    model, gamma = tiny_model("llama"), 3
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    with forward_of(model) as forward:
        rounds = SpeculativeRounds(
            forward,
            forward,
            None,
            prompts_of([4, 9]),
            gamma,
            SamplingPolicy(0.0),
            random_source,
            None,
        )
        rounds.run(8, torch.tensor([], dtype=torch.long))
    records = rounds.records()
    assert [record.start.tolist() for record in records] == [[0, 0], [4, 4]]
    for record in records:
        assert record.took_part.all()
        assert record.kept.tolist() == [gamma, gamma]
        assert record.states is None

from __future__ import annotations

import pytest
import torch

from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.nothing import NoDraft
from distillspec.speculation.records import TokenStatus
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.bigram import BigramRunner
from tests.speculation.decoding.test_engine import (
    distance_from_the_target,
    random_pair,
    random_table,
    seeded,
    standard,
)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_distribution_is_the_targets(temperature: float) -> None:
    way = standard(3, draft=NoDraft())
    assert distance_from_the_target(random_pair(3), way, SamplingPolicy(temperature), 3) < 1e-12


def test_every_round_is_a_step_of_the_target_and_none_of_the_draft() -> None:
    target, draft = BigramRunner(random_table(5, 0)), BigramRunner(random_table(5, 1))
    way = standard(1, draft=NoDraft())
    decoder = SpeculativeDecoder(target, draft, way, SamplingPolicy(), seeded(0))
    generation = decoder.decode(torch.tensor([1, 2]), max_new_tokens=7)
    assert generation.statuses == [TokenStatus.PLAIN] * 7
    assert [
        (record.drafted, record.draft_steps, record.emitted) for record in generation.rounds
    ] == [(0, 0, 1)] * 7
    assert (target.length, draft.length) == (8, 1)

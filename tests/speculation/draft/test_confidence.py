from __future__ import annotations

import pytest
import torch

from distillspec.speculation.draft.confidence import Confidence, DraftVerify
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.kseq import verify_kseq
from tests.speculation.decoding.test_engine import distance_from_the_target, random_pair, standard

LOGITS = torch.tensor([0.7, 0.2, 0.1]).log()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_stops_after_a_token_of_little_untempered_probability(temperature: float) -> None:
    rule, policy = Confidence(0.4), SamplingPolicy(temperature)
    assert rule.stops_after(LOGITS, torch.tensor(1), policy)
    assert not rule.stops_after(LOGITS, torch.tensor(0), policy)
    assert not rule.stops(LOGITS, policy)


def test_the_threshold_of_draft_and_verify_follows_acceptance_by_hand() -> None:
    rule = DraftVerify(0.6, wanted_rate=0.9)
    rule.learn(4, 4, 8)  # rate 0.95: lower
    assert rule.threshold == pytest.approx(0.599)
    rule.learn(4, 1, 8)  # rate 0.6: higher
    assert rule.threshold == pytest.approx(0.6)


@pytest.mark.parametrize("parts", [{}, {"draft": SequencesDraft(2), "verify": verify_kseq}])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_distribution_of_the_output_is_the_targets(
    parts: dict[str, object], temperature: float
) -> None:
    configuration = standard(2, stop=Confidence(0.45), **parts)
    policy = SamplingPolicy(temperature)
    assert distance_from_the_target(random_pair(3), configuration, policy, 3) < 1e-9

from __future__ import annotations

import math

import pytest
import torch

from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.entropy import SVIP, AdaEDL, entropy_nats
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.sampling import SamplingPolicy, entropy_in_one_pass
from tests.speculation.decoding.test_engine import distance_from_the_target, random_pair, standard

SURE, UNSURE = torch.tensor([9.0, 0.0, 0.0, 0.0]), torch.zeros(4)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_the_entropy_is_that_of_the_untempered_distribution(temperature: float) -> None:
    assert entropy_nats(UNSURE, SamplingPolicy(temperature)) == pytest.approx(math.log(4))
    logits = torch.tensor([0.2, 0.8]).log()
    scaled = torch.tensor([0.2, 0.8]) ** (1.0 / (temperature or 1.0))
    distribution = (scaled / scaled.sum()).tolist()
    expected = -sum(share * math.log(share) for share in distribution)
    assert entropy_nats(logits, SamplingPolicy(temperature)) == pytest.approx(expected, rel=1e-5)


def test_a_forbidden_token_adds_no_entropy() -> None:
    logits = torch.tensor([0.0, 0.0, -torch.inf])
    assert entropy_nats(logits, SamplingPolicy()) == pytest.approx(math.log(2))
    assert float(entropy_in_one_pass(logits, torch.ones(()))) == pytest.approx(math.log(2))


@pytest.mark.parametrize("temperature", [0.0, 0.25, 1.0, 3.0])
def test_both_ways_to_the_entropy_agree(temperature: float) -> None:
    policy = SamplingPolicy(temperature)
    at = torch.tensor(policy.reading_temperature)
    for scale in (0.0, 1.0, 30.0, 1e4):
        logits = scale * torch.randn(50, generator=torch.Generator().manual_seed(0))
        nats = float(entropy_in_one_pass(logits, at))
        assert nats == pytest.approx(entropy_nats(logits, policy), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("rule", [AdaEDL(0.5, 0.9), SVIP(0.15, 0.3)])
def test_an_entropy_that_is_known_is_believed(rule: StopRule) -> None:
    assert not rule.stops(UNSURE, SamplingPolicy(), torch.tensor(0.0))
    assert rule.stops(SURE, SamplingPolicy(), torch.tensor(2.0))


@pytest.mark.parametrize("rule", [AdaEDL(0.5, 0.9), SVIP(0.15, 0.3)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_they_stop_where_the_draft_is_unsure_even_when_greedy(
    rule: StopRule, temperature: float
) -> None:
    policy = SamplingPolicy(temperature)
    assert rule.stops(UNSURE, policy)
    assert not rule.stops(SURE, policy)
    assert not rule.stops_after(UNSURE, torch.tensor(0), policy)


def test_adaedl_stops_where_its_guess_falls_below_the_threshold() -> None:
    guess = 1.0 - math.sqrt(0.2 * math.log(4))
    assert not AdaEDL(guess - 1e-4, 0.9).stops(UNSURE, SamplingPolicy())
    assert AdaEDL(guess + 1e-4, 0.9).stops(UNSURE, SamplingPolicy())


def test_svip_stops_where_the_root_of_the_entropy_passes_its_threshold() -> None:
    root = math.sqrt(0.15 * math.log(4))
    assert SVIP(0.15, root - 1e-4).stops(UNSURE, SamplingPolicy())
    assert not SVIP(0.15, root + 1e-4).stops(UNSURE, SamplingPolicy())


def test_the_threshold_of_adaedl_follows_acceptance_by_hand() -> None:
    rule = AdaEDL(0.4, 0.9)
    rule.learn(4, 4, 4)  # rate 0.95, the draft ran to its end
    assert (rule.rate, rule.threshold) == (pytest.approx(0.95), pytest.approx(0.4))
    rule.learn(2, 2, 4)  # rate 0.975, stopped early: lower
    assert rule.threshold == pytest.approx(0.399)
    rule.learn(4, 1, 4)  # rate 0.6125: higher
    assert rule.rate == pytest.approx(0.6125)
    assert rule.threshold == pytest.approx(0.4)
    rule.learn(0, 0, 4)  # nothing was drafted, nothing is learnt
    assert rule.rate == pytest.approx(0.6125)


def test_a_rate_that_is_wanted_and_reached_lets_the_threshold_stay() -> None:
    """One drafted token of two is kept: too few where 0.9 are wanted, enough where half are."""
    published, content = AdaEDL(0.4, 0.9), AdaEDL(0.4, wanted_rate=0.4)
    for rule in (published, content):
        for _ in range(500):
            rule.learn(8, 4, 8)
    assert published.threshold > 0.85
    assert content.threshold == pytest.approx(0.4)


@pytest.mark.parametrize("rule", [AdaEDL(0.55, 0.9), SVIP(0.15, 0.3)])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_distribution_of_the_output_is_the_targets(rule: StopRule, temperature: float) -> None:
    configuration = standard(3, stop=rule, draft=ChainDraft())
    if isinstance(rule, AdaEDL):
        rule.learn = lambda *_: None  # type: ignore[method-assign]  # no state between branches
    policy = SamplingPolicy(temperature)
    assert distance_from_the_target(random_pair(3), configuration, policy, 3) < 1e-9

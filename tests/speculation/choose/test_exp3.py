from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from distillspec.speculation.choose.chooser import Reward, RoundOutcome
from distillspec.speculation.choose.exp3 import EXP3
from distillspec.speculation.choose.forecast import Prior
from distillspec.speculation.choose.ucb import UCB
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.round_times import RoundTimes
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.branches import (
    Branches,
    autoregressive_distribution,
    distribution_of,
    total_variation,
)
from tests.speculation.choose.simulated import MOST, arms, rounds_to_emit, stopping_time_regret

REWARD = Reward(most_tokens=MOST)
every_estimate = pytest.mark.parametrize("is_centred", [False, True])


def exp3(count: int, seed: int, **how: Any) -> EXP3:
    random_source = GeneratorSource(torch.Generator().manual_seed(seed))
    return EXP3(arms(count), REWARD, random_source, **how)


def test_all_arms_are_equally_likely_at_first() -> None:
    assert exp3(4, 0).probabilities() == [0.25] * 4


def test_the_probabilities_by_hand() -> None:
    chooser = EXP3(arms(2), REWARD, Branches([1]))
    assert chooser.choose().gamma == 2
    chooser.learn(RoundOutcome(2, 1.0))  # loss 3/4, estimate 3/2 for the second arm
    rate = math.sqrt(math.log(2) / (2 * 2))
    weight = math.exp(-rate * 1.5)
    assert chooser.probabilities() == pytest.approx([1 / (1 + weight), weight / (1 + weight)])


def test_a_centred_loss_is_what_a_round_lost_beyond_those_before_it() -> None:
    chooser = EXP3(arms(2), REWARD, Branches([1, 0]), is_centred=True)
    chooser.choose()
    chooser.learn(RoundOutcome(2, 1.0))  # loss 3/4: the first one, beyond nothing
    share = chooser.probabilities()[0]
    assert chooser.choose().gamma == 1
    chooser.learn(RoundOutcome(4, 1.0))  # loss 1/4, 1/2 less than the mean so far
    assert chooser.state()["arms"][0]["values"] == pytest.approx([-0.5 / share, 2, 1.0])
    assert chooser.state()["arms"][1]["values"] == pytest.approx([1.5, 2, 1.0])


def test_centred_losses_scatter_less() -> None:
    """Where every arm loses much in every round, most of an estimate is noise."""
    means = [1.2, 1.3, 1.8]
    plain, centred = (
        stopping_time_regret(lambda seed, c=c: exp3(3, seed, is_centred=c), means, 2000, 20)  # type: ignore[misc]
        for c in (False, True)
    )
    assert centred < plain


@every_estimate
def test_stopping_time_regret_grows_at_most_like_the_root_of_the_length(is_centred: bool) -> None:
    means = [1.5, 2.0, 3.5]
    for length in (1000, 4000):
        regret = stopping_time_regret(
            lambda seed: exp3(3, seed, is_centred=is_centred), means, length, 20
        )
        assert 0.0 < regret < 2.0 * math.sqrt(3 * math.log(3) * length)


@every_estimate
def test_on_an_adversarial_sequence_it_holds_where_ucb_does_not(is_centred: bool) -> None:
    """The adversary knows UCB, which draws nothing, and pays it least for every choice."""
    schedule: list[int] = []
    victim = UCB(arms(2), REWARD)
    for _ in range(1500):
        arm = victim.choose().gamma - 1
        schedule.append(arm)
        victim.learn(RoundOutcome(1, 1.0))

    def tokens(arm: int, t: int) -> int:
        return 1 if t < len(schedule) and schedule[t] == arm else MOST + 1

    by_ucb = rounds_to_emit(3000, UCB(arms(2), REWARD), tokens)
    by_exp3 = (
        sum(
            rounds_to_emit(3000, exp3(2, seed, is_centred=is_centred), tokens) for seed in range(10)
        )
        / 10
    )
    assert by_ucb > 1500  # one token a round to the end of the schedule
    assert by_exp3 < 0.75 * by_ucb


@every_estimate
def test_statistics_are_kept_and_given_back(is_centred: bool) -> None:
    chooser = exp3(2, 0, is_centred=is_centred)
    for tokens in (3, 1, 5):
        chooser.choose()
        chooser.learn(RoundOutcome(tokens, 0.5))
    again = exp3(2, 1, is_centred=is_centred)
    again.restore(chooser.state(), where="here")
    assert again.probabilities() == chooser.probabilities()
    assert again.state() == chooser.state()


def test_exploring_does_not_change_the_distribution_of_the_output() -> None:
    from distillspec.speculation.decoding.engine import SpeculativeDecoder
    from tests.speculation.decoding.test_engine import PROMPT, random_pair

    pair, policy = random_pair(2), SamplingPolicy(0.8)

    def decode(random_source: Branches) -> list[int]:
        chooser = EXP3(arms(2), REWARD, random_source)
        decoder = SpeculativeDecoder(pair.target, pair.draft, chooser, policy, random_source)
        return decoder.decode(torch.tensor(PROMPT), max_new_tokens=3).tokens

    expected = autoregressive_distribution(pair.target, policy, PROMPT, 3)
    assert total_variation(distribution_of(decode), expected) < 1e-9


# --- with a prior --------------------------------------------------------------------------------


def informed(count: int, times: RoundTimes, seed: int = 0) -> EXP3:
    reward = Reward(count, most_tokens_per_second=4.0)
    random_source = GeneratorSource(torch.Generator().manual_seed(seed))
    prior = Prior(1000.0, [times] * count, 1.0)
    return EXP3(arms(count), reward, random_source, prior=prior)


def test_a_prior_favours_the_arm_that_the_cost_model_expects_to_be_fastest() -> None:
    cheap = RoundTimes.of_chains(0.01, {1: 1.0, 4: 1.05})
    dear = RoundTimes.of_chains(0.9, {1: 1.0, 4: 1.05})
    for times, best in ((cheap, 3), (dear, 0)):
        probabilities = informed(4, times).probabilities()
        assert sum(probabilities) == pytest.approx(1.0)
        assert min(probabilities) >= 0.05 / 4
        assert max(probabilities) == probabilities[best] > 0.9


def test_a_wrong_prior_is_overcome() -> None:
    """The cost model takes drafts to be free; in truth a drafted token takes a target's step."""
    chooser = informed(4, RoundTimes.of_chains(0.01, {1: 1.0, 4: 1.05}))
    played = [0] * 4
    for turn in range(6000):
        gamma = chooser.choose().gamma
        chooser.learn(RoundOutcome(1 + min(gamma, turn % 3), 1.0 + gamma, drafted=gamma))
        played[gamma - 1] += turn >= 5000
    assert max(played) == played[0]


def test_a_prior_goes_on_from_the_state_and_an_older_state_starts_without_statistics() -> None:
    times = RoundTimes.of_chains(0.2, {1: 1.0, 4: 1.05})
    chooser, restored, fresh = (informed(3, times) for _ in range(3))
    for _ in range(20):
        gamma = chooser.choose().gamma
        chooser.learn(RoundOutcome(2, 1.5, drafted=gamma))
    restored.restore(chooser.state(), where="here")
    assert restored.probabilities() == pytest.approx(chooser.probabilities())
    older = {key: chooser.state()[key] for key in ("kind", "arms")}
    fresh.restore(older, where="here")
    assert fresh.probabilities() == informed(3, times).probabilities()

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from distillspec.speculation.choose.chooser import Reward, RoundOutcome
from distillspec.speculation.choose.fallback import FallbackChooser
from distillspec.speculation.choose.hedge import Hedge
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.entropy import AdaEDL
from distillspec.speculation.draft.lookup import LookupDraft
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.block import verify_block
from tests.speculation.branches import (
    Branches,
    HistoryRunner,
    autoregressive_distribution,
    distribution_of,
    total_variation,
)
from tests.speculation.decoding.test_engine import PROMPT, random_table, standard

ROUNDS, SECONDS = Reward(most_tokens=4), Reward(most_tokens=4, most_tokens_per_second=5.0)
ARMS = [standard(gamma, model=model) for model in ("one", "other") for gamma in (1, 4)]

Chances = Callable[[int], dict[str | None, float]]
"""By place in the text: the chance of each model's token to be kept."""


def steady(_: int) -> dict[str | None, float]:
    return {"one": 0.5, "other": 0.8}


def switching(position: int) -> dict[str | None, float]:
    """The first model is good on the first half of 1000 tokens, the other one on the second."""
    good, bad = ("one", "other") if position % 1000 < 500 else ("other", "one")
    return {good: 0.9, bad: 0.2}


class Spent(NamedTuple):
    rounds: int
    seconds: float


def decode(
    hedge: Hedge, keep_probabilities: Chances, length: int, generator: torch.Generator
) -> Spent:
    """Rounds by arms whose drafts are kept at random; a drafted token takes 0.2 s."""
    text: list[int] = []
    rounds, seconds = 0, 0.0
    hedge.begin()
    while len(text) < length:
        arm = hedge.choose()
        start, accepted = len(text), 0
        while accepted < arm.gamma:
            if (
                float(torch.rand((), generator=generator))
                >= keep_probabilities(start + accepted)[arm.model]
            ):
                break
            accepted += 1
        text += [0] * (accepted + 1)
        known = [keep_probabilities(position) for position in range(start, len(text))]
        took = 1.0 + 0.2 * arm.gamma
        by_model = {model: [row[model] for row in known] for model in known[0]}
        hedge.learn(RoundOutcome(accepted + 1, took, text, accepted + 1, by_model))
        rounds, seconds = rounds + 1, seconds + took
    return Spent(rounds, seconds)


def new(seed: int, reward: Reward, **how: float) -> Hedge:
    return Hedge(ARMS, reward, GeneratorSource(torch.Generator().manual_seed(seed)), **how)


def expected_rounds(hedge: Hedge) -> list[float]:
    return [arm["values"][1] for arm in hedge.state()["arms"]]


def regret(reward: Reward, keep_probabilities: Chances, length: int, seeds: int = 10) -> float:
    """Rounds (or seconds) beyond those that the best arm alone expects, in the mean over seeds."""
    total = 0.0
    for seed in range(seeds):
        hedge = new(seed, reward)
        spent = decode(hedge, keep_probabilities, length, torch.Generator().manual_seed(100 + seed))
        alone = expected_rounds(hedge)
        if reward.counts_seconds:
            costs = (r * (1.0 + 0.2 * arm.gamma) for r, arm in zip(alone, ARMS, strict=True))
            total += spent.seconds - min(costs)
        else:
            total += spent.rounds - min(alone)
    return total / seeds


# --- what it does --------------------------------------------------------------------------------


def test_all_arms_are_equally_likely_at_first() -> None:
    assert new(0, ROUNDS).probabilities() == [0.25] * 4


def test_the_probabilities_by_hand() -> None:
    arms = [standard(1, model="one"), standard(2, model="one")]
    hedge = Hedge(arms, ROUNDS, Branches([0]), scale=0.5)
    hedge.begin()
    hedge.choose()
    hedge.learn(RoundOutcome(3, 1.0, [0, 0, 0], 3, {"one": [1.0, 1.0, 1.0]}))
    assert expected_rounds(hedge) == [2.0, 1.0]  # kept, bonus, another | kept, kept, bonus
    weight = math.exp(-0.5 * math.sqrt(8.0 * math.log(2.0) / 3.0))
    assert hedge.probabilities() == pytest.approx([weight / (1 + weight), 1 / (1 + weight)])


def test_seconds_weigh_the_rounds_of_an_arm() -> None:
    arms = [standard(1, model="one"), standard(2, model="one")]
    hedge = Hedge(arms, SECONDS, Branches())
    for seconds in (1.0, 2.0):
        hedge.begin()
        assert hedge.choose() is arms[int(seconds) - 1]  # each is timed once first
        hedge.learn(RoundOutcome(1, seconds, [0] * 6, 6, {"one": [1.0] * 6}))
    assert expected_rounds(hedge) == [6.0, 4.0]
    weight = math.exp(-math.sqrt(8.0 * math.log(2.0) / 12.0) * (4.0 - 6.0 / 2.0))
    assert hedge.probabilities() == pytest.approx([1 / (1 + weight), weight / (1 + weight)])


def test_an_arm_that_was_slow_once_is_timed_again() -> None:
    arms = [standard(1, model="one"), standard(2, model="one")]
    hedge = Hedge(arms, SECONDS, GeneratorSource(torch.Generator().manual_seed(0)))
    hedge.begin()
    chosen, text = [], [0]
    for number in range(400):
        arm = hedge.choose()
        chosen.append(arm.gamma)
        text += [0] * 3
        seconds = 100.0 if number == 1 else 1.0 / arm.gamma  # the second arm, its first time
        hedge.learn(RoundOutcome(3, seconds, text, 3, {"one": [1.0] * 3}))
    assert chosen[:2] == [1, 2]
    assert 5 <= chosen.count(2) < 20


@pytest.mark.parametrize("reward", [ROUNDS, SECONDS], ids=["rounds", "seconds"])
@pytest.mark.parametrize("keep_probabilities", [steady, switching])
def test_regret_grows_at_most_like_the_root_of_the_length(
    reward: Reward, keep_probabilities: Chances
) -> None:
    """Of a fixed arm in hindsight, on any traffic: one stated constant for both lengths."""
    slowest = 1.0 + 0.2 * 4 if reward.counts_seconds else 1.0
    for length in (1000, 4000):
        bound = 2.0 * slowest * math.sqrt(length / 2.0 * math.log(len(ARMS)))
        tried = 5 * len(ARMS) * slowest  # rounds that only time an arm, and where rounds begin
        assert regret(reward, keep_probabilities, length) < bound + tried


def test_it_learns_of_arms_that_it_does_not_play_and_so_from_few_rounds() -> None:
    hedge = new(0, ROUNDS)
    decode(hedge, steady, 300, torch.Generator().manual_seed(0))
    shares = hedge.probabilities()
    assert shares[3] > 0.95  # the other model's four tokens
    alone = expected_rounds(hedge)
    taus = [300 / rounds for rounds in alone]
    expected = [sum(a**i for i in range(g + 1)) for a in (0.5, 0.8) for g in (1, 4)]
    assert taus == pytest.approx(expected, rel=0.03)


def test_missed_rounds_restart_the_imagined_rounds() -> None:
    hedge = Hedge(ARMS, ROUNDS, Branches())
    sure = {"one": [1.0], "other": [1.0]}
    hedge.choose()
    hedge.learn(RoundOutcome(1, 1.0, [0], 1, sure))
    hedge.learn(RoundOutcome(1, 1.0, [0, 0], 1, sure))
    assert expected_rounds(hedge) == [1.0] * 4
    hedge.learn(RoundOutcome(1, 1.0, [0] * 9, 1, sure))  # others decoded six tokens
    assert expected_rounds(hedge) == [2.0] * 4
    hedge.begin()
    hedge.learn(RoundOutcome(1, 1.0, [0] * 10, 1, sure))
    assert expected_rounds(hedge) == [3.0] * 4


def test_only_models_of_its_chains_are_watched_and_only_where_it_learns() -> None:
    arms = [*ARMS, standard(2, draft=LookupDraft(2))]
    hedge = Hedge(arms, ROUNDS, Branches())
    assert hedge.watches == ("one", "other")
    fallback = FallbackChooser(hedge, standard(2, model="one"), window=1, pause=1)
    assert fallback.watches == ()
    fallback.learn(RoundOutcome(1, 1.0))
    assert fallback.watches == ("one", "other")


@pytest.mark.parametrize("parts", [{"stop": AdaEDL(0.4, 0.9)}, {"verify": verify_block}])
def test_arms_whose_rounds_are_not_known_are_refused(parts: dict[str, object]) -> None:
    with pytest.raises(AssertionError, match="not known"):
        Hedge([standard(2, **parts)], ROUNDS, Branches())


def test_statistics_are_kept_and_given_back() -> None:
    hedge, again = new(0, SECONDS), new(1, SECONDS)
    decode(hedge, steady, 200, torch.Generator().manual_seed(0))
    again.restore(hedge.state(), where="here")
    assert again.state() == hedge.state()
    assert again.probabilities() == hedge.probabilities()


def test_neither_watching_nor_choosing_changes_the_distribution_of_the_output() -> None:
    target, first, second = (HistoryRunner(random_table(2, seed)) for seed in range(3))
    arms = [standard(2, model="one"), standard(1, model="other"), standard(2, draft=LookupDraft(2))]
    policy = SamplingPolicy(0.8)

    def text(random_source: Branches) -> list[int]:
        hedge = Hedge(arms, ROUNDS, random_source)
        decoder = SpeculativeDecoder(
            target, {"one": first, "other": second}, hedge, policy, random_source
        )
        return decoder.decode(torch.tensor(PROMPT), max_new_tokens=3).tokens

    assert (
        total_variation(
            distribution_of(text), autoregressive_distribution(target, policy, PROMPT, 3)
        )
        < 1e-9
    )

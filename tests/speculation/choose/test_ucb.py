from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.speculation.choose.chooser import Reward, RoundOutcome
from distillspec.speculation.choose.forecast import Prior
from distillspec.speculation.choose.ucb import UCB
from distillspec.speculation.round_times import RoundTimes
from tests.speculation.choose.simulated import (
    MOST,
    arms,
    rounds_to_emit,
    stopping_time_regret,
    tokens_of,
)

REWARD = Reward(most_tokens=MOST)
MEANS = [1.5, 2.0, 3.5]


def test_every_arm_is_tried_once_before_any_is_tried_twice() -> None:
    chooser = UCB(arms(4), REWARD)
    tried = []
    for _ in range(4):
        tried.append(chooser.choose().gamma)
        chooser.learn(RoundOutcome(1, 1.0))
    assert sorted(tried) == [1, 2, 3, 4]


def test_the_index_by_hand() -> None:
    chooser = UCB(arms(2), REWARD, delta=0.1, scale=0.5)
    for tokens in (3, 2):
        chooser.choose()
        chooser.learn(RoundOutcome(tokens, 1.0))
    inside = 2 * 4.0 * math.sqrt(2.0) / 0.1
    bonus = math.sqrt(2.0 * (1.0 + 2.0 * math.log(inside)))
    assert chooser._index(chooser._seen[0], 2.0) == pytest.approx(3.0 + 0.5 * MOST / 2 * bonus)


def test_the_index_of_an_arm_with_several_rounds_by_hand() -> None:
    chooser = UCB(arms(2), REWARD, delta=0.1, scale=0.5)
    for n, arm in ((3.0, 0), (2.0, 1)):
        chooser._seen[arm] = chooser._seen[arm]._replace(rounds=n)
    means = [REWARD.mean(*seen) for seen in chooser._seen]
    for arm, n in ((0, 3.0), (1, 2.0)):
        inside = 2 * 25.0 * math.sqrt(1.0 + n) / 0.1
        bonus = math.sqrt((1.0 + n) / n**2 * (1.0 + 2.0 * math.log(inside)))
        assert chooser._index(chooser._seen[arm], 5.0) == pytest.approx(
            means[arm] + 0.5 * MOST / 2 * bonus
        )


def test_each_arm_has_a_bonus_of_its_own() -> None:
    chooser = UCB(arms(2), REWARD)
    for _ in range(30):
        chooser.choose()
        chooser.learn(RoundOutcome(2, 1.0))
    played = [seen.rounds for seen in chooser._seen]
    assert min(played) >= 14  # equal means: the lesser known is taken


def test_stopping_time_regret_grows_like_the_logarithm_of_the_length() -> None:
    def make(_: int) -> UCB:
        return UCB(arms(3), REWARD, scale=0.2)

    short, long = (stopping_time_regret(make, MEANS, length, 20) for length in (1000, 8000))
    gap = max(MEANS) - MEANS[1]
    assert short > 0.0
    # eight times the length: the logarithm grows by a third, a linear regret by eight
    assert long < 2.0 * short
    assert long < 3 * MOST**2 * math.log(8000) / gap


def test_on_changing_traffic_a_window_or_a_discount_finds_the_new_best_arm_sooner() -> None:
    def rounds(seed: int, **how: Any) -> int:
        generator = torch.Generator().manual_seed(seed)

        def tokens(arm: int, t: int) -> int:
            return tokens_of(3.5 if (arm == 0) == (t < 400) else 2.0, generator)

        return rounds_to_emit(3000, UCB(arms(2), REWARD, scale=0.1, **how), tokens)

    def mean(**how: Any) -> float:
        return sum(rounds(seed, **how) for seed in range(10)) / 10

    assert mean(window=100) < mean()
    assert mean(discount=0.98) < mean()


def rounds_to_recover(seed: int, switch: int = 400, horizon: int = 600, **how: Any) -> int:
    """After the arms change places: rounds until 16 of 20 are the new best arm's."""
    generator = torch.Generator().manual_seed(seed)
    chooser = UCB(arms(2), REWARD, scale=0.1, **how)
    chosen = []
    for t in range(switch + horizon):
        arm = chooser.choose().gamma - 1
        chosen.append(arm == 1)
        best = (arm == 0) == (t < switch)
        chooser.learn(RoundOutcome(tokens_of(3.5 if best else 2.0, generator), 1.0))
    assert sum(chosen[:switch]) < 0.25 * switch
    for t in range(switch, switch + horizon):
        if sum(chosen[t : t + 20]) >= 16:
            return t - switch
    return horizon


@pytest.mark.parametrize(
    ("how", "most"), [({"window": 100}, 100), ({"discount": 0.98}, 100)], ids=["window", "discount"]
)
def test_after_traffic_has_changed_they_recover_within_the_rounds_they_remember(
    how: dict[str, Any], most: int
) -> None:
    """A window forgets after 100 rounds; a discount of 0.98 weighs those by 0.13."""
    assert max(rounds_to_recover(seed, **how) for seed in range(10)) <= most
    assert sum(rounds_to_recover(seed) for seed in range(10)) / 10 > 3 * most  # all count alike


def test_statistics_are_kept_and_given_back() -> None:
    chooser = UCB(arms(2), REWARD)
    for tokens in (3, 2, 5):
        chooser.choose()
        chooser.learn(RoundOutcome(tokens, 0.5))
    again = UCB(arms(2), REWARD)
    again.restore(chooser.state(), where="here")
    assert again._seen == chooser._seen
    assert again.choose().gamma == chooser.choose().gamma


# --- with a prior --------------------------------------------------------------------------------


def informed(times: RoundTimes, rounds: float = 1000.0, **how: Any) -> UCB:
    reward = Reward(4, most_tokens_per_second=4.0)
    return UCB(arms(4), reward, prior=Prior(rounds, [times] * 4, 1.0), **how)


def played(chooser: UCB, seconds_a_token: float, rounds: int) -> list[int]:
    """How often each gamma was chosen; of three drafted tokens in turn 0, 1 and 2 are kept."""
    counts = [0] * 4
    for turn in range(rounds):
        gamma = chooser.choose().gamma
        counts[gamma - 1] += 1
        tokens = 1 + min(gamma, turn % 3)
        chooser.learn(RoundOutcome(tokens, 1.0 + seconds_a_token * gamma, drafted=gamma))
    return counts


def test_no_arm_has_to_be_tried_where_the_cost_model_is_right() -> None:
    cheap = RoundTimes.of_chains(0.01, {1: 1.0, 4: 1.0})
    assert played(informed(cheap), 0.01, 200)[0] == 0
    dear = RoundTimes.of_chains(1.0, {1: 1.0, 4: 1.0})
    assert played(informed(dear), 1.0, 200)[1:] == [0, 0, 0]


def test_a_wrong_prior_is_overcome() -> None:
    cheap = RoundTimes.of_chains(0.01, {1: 1.0, 4: 1.0})
    chooser = informed(cheap)
    played(chooser, 1.0, 4000)
    counts = played(chooser, 1.0, 1000)
    assert max(counts) == counts[0]


def test_an_arm_of_which_the_cost_model_knows_nothing_is_tried_and_found() -> None:
    """Two timed arms of 1 token a second, and an unknown one of 2."""
    times = RoundTimes.of_chains(1.0, {1: 1.0, 2: 1.0})
    chooser = UCB(
        arms(3),
        Reward(4, most_tokens_per_second=4.0),
        prior=Prior(1000.0, [times, times, None], 1.0),
    )
    counts = [0] * 3
    for _ in range(2000):
        arm = chooser.choose().gamma - 1
        counts[arm] += 1
        chooser.learn(RoundOutcome(2, 1.0 if arm == 2 else 2.0, drafted=arm + 1))
    assert max(counts) == counts[2]


def test_the_prior_counts_as_its_rounds() -> None:
    """Two arms, their pseudo-observations by hand; alpha starts at 0.7."""
    times = RoundTimes.of_chains(0.1, {1: 1.1, 2: 1.2})
    reward = Reward(2, most_tokens_per_second=4.0)
    chooser = UCB(arms(2), reward, prior=Prior(10.0, [times] * 2, 2.0), scale=1e-9)
    assert chooser.choose().gamma == 2  # 2.19 tokens in 2.8 s, and not 1.7 in 2.4 s
    chooser.learn(RoundOutcome(1, 10.0, drafted=2))  # its first token is rejected, and it took long
    assert chooser.choose().gamma == 1


def test_a_prior_goes_on_from_the_state_and_takes_an_older_state_too() -> None:
    times = RoundTimes.of_chains(0.2, {1: 1.0, 4: 1.05})
    chooser, restored, older = (informed(times) for _ in range(3))
    played(chooser, 0.3, 50)
    restored.restore(chooser.state(), where="here")
    assert restored.state() == chooser.state()
    older.restore({key: chooser.state()[key] for key in ("kind", "arms")}, where="here")
    assert older.state()["arms"] == chooser.state()["arms"]
    with pytest.raises(DistillSpecError, match="no acceptance of these drafts"):
        informed(times).restore(chooser.state() | {"forecast": {}}, where="here")

from __future__ import annotations

import pytest

from distillspec.speculation.choose.chooser import Chooser, Reward, RoundOutcome
from distillspec.speculation.choose.fixed import Fixed
from tests.speculation.decoding.test_engine import standard


def test_tokens_per_round_are_counted_on_the_scale_of_the_largest_gamma() -> None:
    reward = Reward(most_tokens=8)
    assert reward.range == 8.0
    assert reward.mean(4, 10, 99.0) == 2.5
    assert (reward.loss(9, 1.0), reward.loss(1, 1.0)) == (0.0, 1.0)


def test_tokens_per_second_are_a_ratio_of_sums_and_a_share_of_the_most() -> None:
    reward = Reward(most_tokens=8, most_tokens_per_second=100.0)
    assert reward.range == 1.0
    assert reward.mean(4, 10, 0.2) == pytest.approx(0.5)
    assert reward.loss(5, 0.1) == pytest.approx(0.5)
    assert (reward.mean(1, 9, 0.01), reward.loss(9, 0.01)) == (1.0, 0.0)


def test_a_fixed_choice_is_a_chooser() -> None:
    chooser: Chooser = Fixed(standard(2))
    chooser.learn(RoundOutcome(3, 0.1))
    assert chooser.choose().gamma == 2

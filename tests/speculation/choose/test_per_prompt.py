from __future__ import annotations

import pytest

from distillspec.errors import DistillSpecError
from distillspec.speculation.choose.chooser import Chooser, Reward, RoundOutcome
from distillspec.speculation.choose.per_prompt import PerPrompt
from distillspec.speculation.choose.ucb import UCB
from tests.speculation.choose.simulated import MOST, arms


def make() -> UCB:
    return UCB(arms(3), Reward(most_tokens=MOST), scale=0.01)


def chosen(chooser: Chooser, rounds: int) -> list[int]:
    """Gammas, where the first arm is the best."""
    gammas = []
    for _ in range(rounds):
        gammas.append(chooser.choose().gamma)
        chooser.learn(RoundOutcome(MOST if gammas[-1] == 1 else 1, 1.0))
    return gammas


def test_within_a_prompt_it_learns_and_the_next_prompt_has_a_new_chooser() -> None:
    stored, renewed = make(), PerPrompt(make)
    for chooser in (stored, renewed):
        chooser.begin()
        assert chosen(chooser, 5) == [1, 2, 3, 1, 1]
        chooser.begin()
    assert chosen(stored, 3) == [1, 1, 1]
    assert chosen(renewed, 3) == [1, 2, 3]


def test_it_stores_nothing_and_takes_nothing_else() -> None:
    chooser = PerPrompt(make)
    chosen(chooser, 5)
    state = chooser.state()
    assert state == PerPrompt(make).state()
    assert state["arms"] == []
    chooser.restore(state, where="here")
    with pytest.raises(DistillSpecError, match="'ucb'"):
        chooser.restore(make().state(), where="here")

"""Properties of the cost model, and its closed forms against sums by hand."""

from __future__ import annotations

import pytest

from distillspec.methods.cost_model import (
    best_gamma,
    break_even_alpha,
    perfect_draft_cap,
    speedup_iid,
    tau_iid,
)
from distillspec.speculation.round_times import BlockTime, RoundTimes


def flat(c: float, v: float = 1.0) -> RoundTimes:
    return RoundTimes.of_chains(c, dict.fromkeys(range(1, 9), v))


@pytest.mark.parametrize("gamma", [1, 3, 8])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_tau_is_the_published_closed_form(alpha: float, gamma: int) -> None:
    assert tau_iid(alpha, gamma) == pytest.approx((1 - alpha ** (gamma + 1)) / (1 - alpha))


@pytest.mark.parametrize("gamma", [1, 3, 8])
def test_tau_runs_from_one_token_to_the_full_block_and_never_falls(gamma: int) -> None:
    values = [tau_iid(step / 20, gamma) for step in range(21)]
    assert values[0] == 1.0
    assert values[-1] == gamma + 1
    assert values == sorted(values)


def test_a_free_draft_and_a_free_verification_give_a_speedup_of_tau() -> None:
    assert speedup_iid(0.5, 4, flat(0.0)) == pytest.approx(tau_iid(0.5, 4))


def test_the_papers_form_by_hand() -> None:
    assert speedup_iid(0.5, 2, RoundTimes.of_chains(0.1, {2: 1.3})) == pytest.approx(1.75 / 1.5)


def test_a_second_unread_token_costs_as_often_as_a_block_is_kept() -> None:
    times = RoundTimes({2: BlockTime(2, 2, 0.2, 1.3)}, unread=0.4)
    assert speedup_iid(0.5, 2, times) == pytest.approx(1.75 / (1.5 + 0.25 * 0.4))


def test_a_draft_that_is_never_accepted_only_costs() -> None:
    assert all(speedup_iid(0.0, gamma, flat(0.1)) < 1.0 for gamma in range(1, 9))


def test_the_cap_is_the_best_of_full_blocks() -> None:
    assert perfect_draft_cap(flat(0.1)) == (8, pytest.approx(9 / 1.8))
    rising = RoundTimes.of_chains(0.1, {1: 1.0, 2: 1.0, 4: 4.0})
    assert perfect_draft_cap(rising) == (2, pytest.approx(3 / 1.2))


def test_no_acceptance_rate_predicts_more_than_the_cap() -> None:
    cap = perfect_draft_cap(flat(0.15)).speedup
    assert all(best_gamma(step / 50, flat(0.15)).speedup <= cap for step in range(51))


def test_a_better_draft_is_given_longer_blocks() -> None:
    gammas = [best_gamma(alpha, flat(0.1)).gamma for alpha in (0.2, 0.5, 0.8, 0.95)]
    assert gammas == sorted(gammas)
    assert gammas[0] == 1 and gammas[-1] > 4


def test_at_the_break_even_the_best_gamma_gives_exactly_nothing() -> None:
    alpha = break_even_alpha(flat(0.2))
    assert alpha is not None and 0.0 < alpha < 1.0
    assert best_gamma(alpha, flat(0.2)).speedup == pytest.approx(1.0)
    assert best_gamma(alpha + 0.02, flat(0.2)).speedup > 1.0
    assert best_gamma(alpha - 0.02, flat(0.2)).speedup < 1.0


def test_with_one_block_size_of_one_and_a_flat_target_the_break_even_is_the_cost_ratio() -> None:
    assert break_even_alpha(RoundTimes.of_chains(0.3, {1: 1.0})) == pytest.approx(0.3)


def test_a_draft_as_slow_as_its_target_can_never_pay() -> None:
    assert break_even_alpha(flat(1.0, 1.2)) is None


def test_a_free_draft_breaks_even_at_once() -> None:
    assert break_even_alpha(flat(0.0)) == 0.0

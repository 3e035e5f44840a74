"""What is expected of arms, against sums by hand and rounds that were simulated."""

from __future__ import annotations

import random
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.speculation.choose.chooser import RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.forecast import Forecast, Prior
from distillspec.speculation.draft.calibrated import CalibratedAdaEDL
from distillspec.speculation.draft.entropy import SVIP
from distillspec.speculation.draft.nothing import NoDraft
from distillspec.speculation.round_times import RoundTimes
from distillspec.speculation.verify.block import verify_block
from tests.speculation.decoding.test_engine import standard

TIMES = RoundTimes.of_chains(0.1, {1: 1.1, 2: 1.2, 4: 1.4})


def forecast(arms: list[Configuration], **how: Any) -> Forecast:
    return Forecast(arms, Prior(100.0, [TIMES] * len(arms), 2.0), **how)


def test_before_a_round_all_tokens_are_taken_to_be_kept_alike() -> None:
    one, two = forecast([standard(1), standard(2)]).of_arms()
    assert one == (pytest.approx(1.7), pytest.approx(2.0 * 1.2))
    assert two == (pytest.approx(1 + 0.7 + 0.49), pytest.approx(2.0 * 1.4))


def test_rounds_of_one_arm_show_what_all_others_emit() -> None:
    """Position i is kept with probability 0.9, 0.6, 0.5, 0.5 where it is reached."""
    hazards, generator = (0.9, 0.6, 0.5, 0.5), random.Random(0)
    arms = [standard(1), standard(2), standard(4)]
    seen = forecast(arms)
    for _ in range(4000):
        accepted = 0
        while accepted < 4 and generator.random() < hazards[accepted]:
            accepted += 1
        seen.learn(arms[2], RoundOutcome(accepted + 1, 1.0, drafted=4))
    expected = [one.tokens for one in seen.of_arms()]
    assert expected == pytest.approx([1.9, 1.9 + 0.54, 1.9 + 0.54 + 0.27 + 0.135], abs=0.05)


def test_a_round_changes_what_was_expected_before_it() -> None:
    seen = forecast([standard(2)])
    (before,) = seen.filled()
    seen.learn(standard(2), RoundOutcome(3, 1.0, drafted=2))
    assert seen.filled()[0].tokens > before.tokens
    restored = forecast([standard(2)])
    assert restored.filled() == [before]
    restored.restore(seen.state(), where="here")
    assert restored.filled() == seen.filled()


def test_an_arm_that_drafts_nothing_emits_one_token() -> None:
    plain = standard(1, draft=NoDraft())
    assert forecast([plain]).of_arms() == [(1.0, pytest.approx(2.0 * 1.2))]


def test_adaedl_is_expected_to_be_as_fast_as_the_best_of_its_lengths() -> None:
    adaptive = standard(4, stop=CalibratedAdaEDL(TIMES, 4))
    first, *fixed = forecast(
        [adaptive, standard(1), standard(2), standard(3), standard(4)]
    ).of_arms()
    speeds = [one.tokens / one.seconds for one in fixed]
    assert first.tokens / first.seconds == pytest.approx(max(speeds))


def test_an_arm_of_which_nothing_is_known_is_filled_with_the_mean_of_the_others() -> None:
    some = forecast([standard(1), standard(2), standard(4, stop=SVIP(1, 1))])
    assert some.of_arms()[2] is None
    one, two, unknown = some.filled()
    assert unknown.tokens == pytest.approx((one.tokens + two.tokens) / 2)
    assert unknown.seconds == pytest.approx((one.seconds + two.seconds) / 2)
    assert not forecast([standard(4, stop=SVIP(1, 1))]).knows_some()


def test_of_a_stop_rules_rounds_only_the_first_token_counts() -> None:
    arms = [standard(2, stop=SVIP(1, 1)), standard(2)]
    seen, both = forecast(arms), forecast(arms)
    for _ in range(50):
        seen.learn(arms[0], RoundOutcome(3, 1.0, drafted=2))
        both.learn(arms[1], RoundOutcome(3, 1.0, drafted=2))
    assert 1.0 < seen.of_arms()[1].tokens < both.of_arms()[1].tokens <= 3.0
    assert seen.state()["None"][1] == [50.0, 0.0]


def test_old_rounds_lose_their_weight_where_the_traffic_changes() -> None:
    arms = [standard(2)]
    seen = forecast(arms, keep=0.5)
    for tokens in (3, 3, 3, 1):
        seen.learn(arms[0], RoundOutcome(tokens, 1.0, drafted=2))
    assert seen.state() == {"None": [[0.875, 0.875], [1.875, 0.875]]}


def test_a_forecast_goes_on_from_its_state_and_refuses_another() -> None:
    arms = [standard(1), standard(4)]
    seen, restored = forecast(arms), forecast(arms)
    seen.learn(arms[1], RoundOutcome(3, 1.0, drafted=4))
    restored.restore(seen.state(), where="here")
    assert restored.of_arms() == seen.of_arms()
    for state in ({}, {"None": [[1.0]]}, None, {"None": [["x"] * 4] * 2}):
        with pytest.raises(DistillSpecError, match="no acceptance of these drafts"):
            forecast(arms).restore(state, where="here")


def test_nothing_is_expected_of_block_verification_and_its_rounds_show_nothing() -> None:
    """How often it keeps a token hangs on gamma."""
    arms = [standard(2, verify=verify_block), standard(2)]
    seen = forecast(arms)
    before = seen.of_arms()
    seen.learn(arms[0], RoundOutcome(3, 1.0, drafted=2))
    assert before[0] is None and seen.of_arms() == before
    assert not seen.shares(arms[0])

"""Choosers and fallbacks as data: defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from distillspec.recipe.choosing import Choose, EXP3Config, FallbackConfig, UCBConfig

CHOOSE: TypeAdapter[Any] = TypeAdapter(Choose)


def choose(**settings: Any) -> Any:
    return CHOOSE.validate_python({"arms": ["standard"], **settings})


def test_the_kind_names_the_chooser() -> None:
    assert isinstance(choose(kind="ucb"), UCBConfig)
    assert isinstance(choose(kind="exp3"), EXP3Config)
    with pytest.raises(ValidationError, match="kind"):
        choose(kind="ucbspec")


def test_a_prior_is_left_to_the_reward_unless_it_is_given() -> None:
    assert choose(kind="ucb").prior is None
    assert choose(kind="exp3", prior=0).prior == 0.0
    for settings in ({"prior": -1}, {"prior": 5, "reward": "tokens"}, {"prior": 5, "per": "text"}):
        with pytest.raises(ValidationError, match="prior"):
            choose(kind="ucb", **settings)
    # No prior is what such a chooser has in any case.
    assert choose(kind="ucb", prior=0, reward="tokens").prior == 0.0


def test_hedge_has_no_prior() -> None:
    with pytest.raises(ValidationError, match="prior"):
        choose(kind="hedge", prior=5)


def test_a_fallback_pauses_for_at_least_a_window() -> None:
    assert FallbackConfig(baseline="standard@2").pause >= 64
    with pytest.raises(ValidationError, match="must be at least window"):
        FallbackConfig(baseline="standard@2", window=9, pause=8)

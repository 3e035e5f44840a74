"""What a method that chooses becomes: its arms, its reward, and what it knows before."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distillspec.methods.build import configuration
from distillspec.methods.choosers import CHOOSERS, chooser, most_tokens_per_second
from distillspec.methods.step_times import StepTimes
from distillspec.recipe.suite import Suite
from distillspec.speculation.choose.chooser import RoundOutcome
from distillspec.speculation.choose.hedge import Hedge
from distillspec.speculation.choose.per_prompt import PerPrompt
from distillspec.speculation.draft.lookup import LookupDraft
from distillspec.speculation.random_source import GeneratorSource
from tests.methods.chain_times import chain_times
from tests.methods.test_build import BY_NAME, SEVERAL, SUITE, kinds


def a_source() -> GeneratorSource:
    return GeneratorSource(torch.Generator().manual_seed(0))


def test_each_kind_of_the_schema_has_its_line_and_no_line_is_unknown_to_it() -> None:
    assert CHOOSERS.keys() == kinds("choose")


def test_what_chooses_knows_its_arms_and_their_reward() -> None:
    by_name = {method.name: method for method in SUITE.methods}
    ucb = chooser(SUITE, by_name["ucb"], a_source(), {}, "distilled")
    seen = []
    for _ in range(3):
        first = ucb.choose()
        seen.append((first.name, first.gamma))
        ucb.learn(RoundOutcome(2, 0.01))
    assert seen == [("standard", 2), ("standard", 4), ("spectr", 2)]
    exp3 = chooser(SUITE, by_name["exp3"], a_source(), {}, "distilled")
    assert exp3.choose().gamma == 8


def suite_of(**choose: Any) -> Suite:
    methods = [{"name": "standard"}, {"name": "c", "choose": {"arms": ["standard"], **choose}}]
    return Suite.model_validate({"gammas": [1, 4], "methods": methods})


@pytest.mark.parametrize("kind", ["ucb", "exp3"])
@pytest.mark.parametrize(("step_seconds", "gamma"), [(0.01, 4), (0.9, 1)])
def test_with_step_times_the_first_round_is_by_the_arm_that_they_favour(
    kind: str, step_seconds: float, gamma: int
) -> None:
    suite = suite_of(kind=kind)
    steps = {"standard": chain_times(1.0, 1.0, {1: 1.05, 4: 1.2}, {"distilled": step_seconds})}
    made = chooser(suite, suite.named("c"), a_source(), steps, "distilled")
    assert made.choose().gamma == gamma


def test_without_a_prior_each_arm_is_tried_first() -> None:
    steps = {"standard": chain_times(1.0, 1.0, {1: 1.05, 4: 1.2}, {"distilled": 0.01})}
    for choose in ({"prior": 0}, {"reward": "tokens"}):
        suite = suite_of(kind="ucb", **choose)
        made = chooser(suite, suite.named("c"), a_source(), steps, "distilled")
        seen = []
        for _ in range(2):
            seen.append(made.choose().gamma)
            made.learn(RoundOutcome(2, 0.01, drafted=1))
        assert seen == [1, 4]


@pytest.mark.parametrize("memory", [{"window": 64}, {"discount": 0.98}])
def test_a_chooser_that_forgets_overcomes_a_wrong_prior(memory: dict[str, float]) -> None:
    """Step times favour gamma 4, whose rounds then take ten times as long."""
    suite = suite_of(kind="ucb", scale=0.1, **memory)
    steps = {"standard": chain_times(1.0, 1.0, {1: 1.05, 4: 1.2}, {"distilled": 0.01})}
    made = chooser(suite, suite.named("c"), a_source(), steps, "distilled")
    chosen = []
    for _ in range(600):
        gamma = made.choose().gamma
        chosen.append(gamma)
        made.learn(RoundOutcome(2, 1.1 if gamma == 1 else 11.0, drafted=gamma))
    assert chosen[0] == 4
    assert chosen[-100:].count(1) > 80


def test_arms_of_which_the_cost_model_knows_nothing_get_no_prior() -> None:
    methods = [
        {"name": "standard"},
        {"name": "svip", "stop": {"kind": "svip"}},
        {"name": "c", "choose": {"kind": "ucb", "arms": ["svip"]}},
    ]
    suite = Suite.model_validate({"gammas": [1, 4], "methods": methods})
    times = chain_times(1.0, 1.0, {1: 1.05, 4: 1.2}, {"distilled": 0.01})
    steps = {"standard": times, "svip": times}
    made = chooser(suite, suite.named("c"), a_source(), steps, "distilled")
    assert "forecast" not in made.state()


def test_each_arm_knows_its_draft() -> None:
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    two = chooser(SEVERAL, BY_NAME["two"], random_source, {}, "distilled")
    seen = []
    for _ in range(3):
        seen.append(two.choose().model)
        two.learn(RoundOutcome(2, 0.01))
    assert seen == ["distilled", "distilled", "undistilled"]
    assert configuration(BY_NAME["lookup"], 8, "distilled").model is None
    assert configuration(BY_NAME["lookup"], 8).draft == LookupDraft(2)


def test_with_memory_prompt_each_prompt_starts_without_statistics() -> None:
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    made = chooser(SEVERAL, BY_NAME["hedge"], random_source, {}, "distilled")
    assert isinstance(made, PerPrompt)
    first = made.choose()
    made.begin()
    assert made.choose() != first  # it has other arms, whose stop rules know nothing yet
    stored = BY_NAME["hedge"].model_copy(
        update={"choose": BY_NAME["hedge"].choose.model_copy(update={"memory": "kept"})}  # type: ignore[union-attr]
    )
    assert isinstance(chooser(SEVERAL, stored, random_source, {}, "distilled"), Hedge)


def test_the_most_that_arms_can_earn_is_that_of_their_own_drafts() -> None:
    def times(**seconds: float) -> StepTimes:
        gammas = {2: 1.0, 4: 1.0, 6: 1.0, 8: 1.0}
        return chain_times(1.0, 1.0, gammas, seconds)

    steps = {
        "standard": times(distilled=0.5, control=0.01),
        "weak": times(undistilled=0.25),
        "lookup": times(distilled=0.0),
    }
    speeds = {
        name: most_tokens_per_second(SEVERAL, BY_NAME[name], "distilled", steps)
        for name in ("two", "free", "guarded")
    }
    assert speeds["two"] == pytest.approx(9 / (8 * 0.25 + 1))
    assert speeds["free"] == speeds["guarded"] == pytest.approx(9.0)


@pytest.mark.parametrize("arms", [["card"], ["card", "plain"], ["plain"]])
def test_arms_that_draft_in_two_processes_or_nothing_can_earn_what_chains_of_their_draft_can(
    arms: list[str],
) -> None:
    methods = [
        {"name": "standard"},
        {"name": "weak", "draft": {"kind": "chain", "model": "undistilled"}, "gammas": [8]},
        {"name": "card", "parallel": {"kind": "card"}},
        {"name": "plain", "draft": {"kind": "none"}},
        {"name": "ucb", "choose": {"kind": "ucb", "per": "text", "arms": arms}},
    ]
    suite = Suite.model_validate({"drafts": ["distilled"], "gammas": [4], "methods": methods})

    def times(gamma: int, **seconds: float) -> StepTimes:
        return chain_times(1.0, 1.0, {gamma: 1.0}, seconds)

    steps = {
        "standard": times(4, distilled=0.25),
        "weak": times(8, undistilled=0.01),
        "plain": times(1, distilled=0.0),
    }
    speed = most_tokens_per_second(suite, suite.named("ucb"), "distilled", steps)
    assert speed == pytest.approx(5 / (4 * 0.25 + 1))

"""A suite's method that chooses, which is data, becomes a chooser of arms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distillspec.methods import cost_model
from distillspec.methods.build import configuration, model_of, models
from distillspec.methods.step_times import StepTimes
from distillspec.recipe.choosing import EXP3Config, HedgeConfig, UCBConfig
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.speculation.choose.chooser import Chooser, Reward
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.exp3 import EXP3
from distillspec.speculation.choose.fallback import FallbackChooser
from distillspec.speculation.choose.forecast import Forecast, Prior
from distillspec.speculation.choose.hedge import Hedge
from distillspec.speculation.choose.per_prompt import PerPrompt
from distillspec.speculation.choose.ucb import UCB
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.round_times import RoundTimes

PRIOR_ROUNDS = 1000.0  # then the bonus of UCB is about as large as the cost model's error
_OF_MEMORY = 0.25  # the prior's rounds over those that a forgetting chooser holds, at most

CHOOSERS: dict[
    str, Callable[[Any, Sequence[Configuration], Reward, RandomSource, Prior | None], Chooser]
] = {
    "ucb": lambda choose, arms, reward, _, prior: UCB(
        arms,
        reward,
        delta=choose.delta,
        scale=choose.scale,
        discount=choose.discount,
        window=choose.window,
        prior=prior,
    ),
    "exp3": lambda choose, arms, reward, random_source, prior: EXP3(
        arms,
        reward,
        random_source,
        scale=choose.scale,
        is_centred=choose.estimate == "centred",
        prior=prior,
    ),
    "hedge": lambda choose, arms, reward, random_source, _: Hedge(
        arms, reward, random_source, scale=choose.scale
    ),
}


def chooser(
    suite: Suite,
    method: MethodConfig,
    random_source: RandomSource,
    steps: Mapping[str, StepTimes],
    draft: str,
) -> Chooser:
    """What a method that chooses becomes, with arms that know nothing yet.

    Args:
        suite: Where the arms are defined.
        method: A method with `choose`.
        random_source: The source of the chooser's draws.
        steps: Step times by method, at one temperature. Empty where nothing could be timed: the
            highest possible speed then counts as 1 token per second, and there is no prior.
        draft: The draft of the column.
    """
    choose = method.choose
    assert choose is not None
    fastest: float | None = None
    if choose.reward == "tokens_per_second":
        fastest = most_tokens_per_second(suite, method, draft, steps) if steps else 1.0
    reward = Reward(max(gamma for _, gamma in suite.arms(method)), fastest)
    prior = _prior(suite, method, steps, draft)

    # Stop rules learn, so two choosers share no arms.
    def make() -> Chooser:
        arms = [
            configuration(arm, gamma, draft, steps.get(arm.name))
            for arm, gamma in suite.arms(method)
        ]
        # Where it expects nothing of any arm, a prior would only add noise.
        known = prior if prior and Forecast(arms, prior).knows_some() else None
        return CHOOSERS[choose.kind](choose, arms, reward, random_source, known)

    return PerPrompt(make) if choose.memory == "prompt" else make()


def _prior(
    suite: Suite, method: MethodConfig, steps: Mapping[str, StepTimes], draft: str
) -> Prior | None:
    """What the cost model knows of a chooser's arms; None if it is not asked."""
    choose = method.choose
    assert choose is not None
    if isinstance(choose, HedgeConfig) or not steps:
        return None
    if choose.reward == "tokens" or choose.per == "text":
        return None
    rounds = _usual_rounds(choose) if choose.prior is None else choose.prior
    times: list[RoundTimes | None] = []
    for arm, _ in suite.arms(method):
        timed, model = steps.get(arm.name), model_of(arm, draft) or draft
        known = timed is not None and model in timed.draft_seconds
        times.append(timed.round_times(model) if timed is not None and known else None)
    target_seconds = next(iter(steps.values())).target_seconds
    return Prior(rounds, times, target_seconds) if rounds else None


def _usual_rounds(choose: UCBConfig | EXP3Config) -> float:
    """The prior's rounds; few where old rounds are forgotten, so that new ones can correct it."""
    held = math.inf
    if isinstance(choose, UCBConfig) and choose.window is not None:
        held = choose.window
    elif isinstance(choose, UCBConfig) and choose.discount < 1.0:
        held = 1.0 / (1.0 - choose.discount)
    return min(PRIOR_ROUNDS, _OF_MEMORY * held)


def most_tokens_per_second(
    suite: Suite, method: MethodConfig, draft: str, steps: Mapping[str, StepTimes]
) -> float:
    """Speed of the arms' drafts if they were never rejected, as chains or by lookup.

    It includes the drafts of arms in two processes. For arms that draft nothing it is that of the
    column's draft.

    Args:
        suite: Where the arms are defined.
        method: A method with `choose`.
        draft: The draft of the column.
        steps: Step times by method, at one temperature.
    """
    # 1. The draft models that count.
    arms = [arm for arm, _ in suite.arms(method)]
    drafts = set(models(suite, method, draft))
    if any(arm.parallel for arm in arms) or not any(arm.drafts for arm in arms):
        drafts.add(draft)
    lookups = {arm.name for arm in arms if arm.draft.kind == "lookup"}
    # 2. Tokens per second of each timed draft at alpha = 1.
    caps = {
        (name, model): cost_model.perfect_draft_cap(times.round_times(model)).speedup
        / times.target_seconds
        for name, times in steps.items()
        for model in times.draft_seconds
        if suite.named(name).drafts and (name in lookups or model in drafts)
    }
    # 3. Count lookups, and standard methods. If no standard method was timed, count all.
    timed = {name for name, _ in caps}
    standard = {arm.name for arm in suite.methods if arm.is_standard} & timed or timed
    return max(cap for (name, _), cap in caps.items() if name in standard | lookups)


def with_fallback(
    suite: Suite, method: MethodConfig, way: Chooser, draft: str | None = None
) -> Chooser:
    """`way` behind the method's fallback, if it has one."""
    if method.fallback is None:
        return way
    plan = method.fallback
    return FallbackChooser(
        way,
        configuration(*suite.baseline(method), draft),
        window=plan.window,
        margin=plan.margin,
        pause=plan.pause,
    )

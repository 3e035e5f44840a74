"""The method of `decode`: found by its name or made from data, and the chooser that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.methods.build import configuration, configurations, max_slots
from distillspec.methods.choosers import chooser, with_fallback
from distillspec.methods.measure_steps import measure_steps
from distillspec.methods.step_times import StepTimes, has_room
from distillspec.recipe.loading import load_suite, method_of, suite_of
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.choose.chooser import Chooser
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

STANDARD = "standard"
DRAFT = "draft"  # the name of the only draft
_TIMED_ROUNDS = 5  # per arm and block size


def planned_method(
    method: str | Mapping[str, Any] | MethodConfig, suite: str | Path | Suite | None, gamma: int
) -> tuple[MethodConfig, Suite]:
    """The method, and a suite that holds it and its arms.

    Args:
        method: "standard", the name of a method in `suite`, or a method as a suite has it.
        suite: Where names and arms are looked up; None if there is no suite.
        gamma: Drafted tokens per block, of a method that does not choose.

    Raises:
        DistillSpecError: No method has this name, or the method cannot decode a single text.
    """
    if suite is not None:
        plans = suite if isinstance(suite, Suite) else load_suite(suite)
    else:
        plans = Suite(gammas=(gamma,))
    if isinstance(method, str):
        where = plans.name if suite is None or isinstance(suite, Suite) else str(suite)
        plan = _named(method, plans, where or "decode: method")
    else:
        plan = method if isinstance(method, MethodConfig) else method_of(method)
    # A chooser needs a suite with its arms; another method needs only itself.
    if plan.choose is not None or plan.fallback is not None:
        plan, plans = _with_arms(plan, plans)
    else:
        plans = Suite(methods=(plan,), gammas=(gamma,))
        plan = plan.model_copy(update={"gammas": (gamma,)})
    if plan.model is not None:
        raise _names_a_draft(plan)
    return plan, plans


def _named(name: str, plans: Suite, where: str) -> MethodConfig:
    plan = next((method for method in plans.methods if method.name == name), None)
    if plan is None and name == STANDARD:
        plan = MethodConfig()
    if plan is None:
        names = dict.fromkeys([STANDARD, *(method.name for method in plans.methods)])
        raise DistillSpecError(
            f"no method '{name}'", where=where, fix=f"choose one of {', '.join(names)}"
        )
    return plan


def _with_arms(plan: MethodConfig, plans: Suite) -> tuple[MethodConfig, Suite]:
    """A method that chooses, in a suite with the methods of `plans` and `standard` as its arms."""
    arms = [method for method in plans.methods if method.name != plan.name]
    # `standard` must stay the name of the arm.
    if plan.name == STANDARD:
        plan = plan.model_copy(update={"name": "chooser"})
    if all(method.name != STANDARD for method in arms):
        arms.append(MethodConfig())
    # Through the loader, so that the schema checks the arms.
    plans = suite_of(
        plans.model_dump(mode="json")
        | {"methods": [method.model_dump(mode="json") for method in (*arms, plan)]}
    )
    if plan.choose is not None and plan.choose.per == "text":
        raise DistillSpecError(
            "the method chooses once per text, and `decode` has a single text",
            where="decode: method: choose: per",
            fix="set per: round, or name one of its arms as the method",
        )
    for arm, _ in configurations(plans, plan):
        if arm.model is not None:
            raise _names_a_draft(arm)
    return plan, plans


def _names_a_draft(plan: MethodConfig) -> DistillSpecError:
    return DistillSpecError(
        f"the method {plan.name!r} names the draft '{plan.model}', and `decode` is given a draft",
        where="decode: method: draft",
        fix="remove `model` from the method, or use `distillspec evaluate` for several drafts",
    )


def chooser_for(
    plans: Suite,
    plan: MethodConfig,
    gamma: int,
    target: Runner,
    drafts: Mapping[str, Runner],
    prompt: Tensor,
    policy: SamplingPolicy,
    seed: int,
) -> Chooser:
    """Chooses the configuration of each round: always the same, or one of several arms."""
    # Timing needs room for a round behind the prompt.
    needs_times = plan.follows_costs or (
        plan.choose is not None
        and (
            plan.choose.reward == "tokens_per_second"
            or any(arm.follows_costs for arm, _ in plans.arms(plan))
        )
    )
    steps: dict[str, StepTimes] = {}
    if needs_times and has_room(prompt.tolist(), drafts.values(), max_slots(plans)):
        steps = _steps(plans, plan, gamma, target, drafts, prompt, policy, seed)
    if plan.choose is None:
        way = Fixed(configuration(plan, gamma, DRAFT, steps.get(plan.name)))
        return with_fallback(plans, plan, way, DRAFT)
    # The arms have a generator apart from the tokens': a choice must not depend on the uniforms
    # that verify its tokens.
    arms = GeneratorSource(torch.Generator().manual_seed(derive_seed(seed, "arms of decode")))
    return with_fallback(plans, plan, chooser(plans, plan, arms, steps, DRAFT), DRAFT)


def _steps(
    plans: Suite,
    plan: MethodConfig,
    gamma: int,
    target: Runner,
    drafts: Mapping[str, Runner],
    prompt: Tensor,
    policy: SamplingPolicy,
    seed: int,
) -> dict[str, StepTimes]:
    """Time the method, or each of its arms, for a few rounds."""
    random_source = GeneratorSource(
        torch.Generator(prompt.device).manual_seed(derive_seed(seed, "timing of decode"))
    )
    timed: dict[str, tuple[MethodConfig, Sequence[int]]] = {plan.name: (plan, (gamma,))}
    if plan.choose is not None:
        timed = {
            arm.name: (arm, plans.of(arm))
            for arm, _ in plans.arms(plan)
            if arm.parallel is None and arm.draft.kind != "sequences"
        }
        # At least one method must be timed, whatever the arms are.
        timed.setdefault(STANDARD, (plans.named(STANDARD), plans.of(plans.named(STANDARD))))
    return {
        name: measure_steps(
            target,
            drafts,
            [configuration(arm, size, DRAFT) for size in sizes],
            prompt,
            policy=policy,
            random_source=random_source,
            rounds=_TIMED_ROUNDS,
        )
        for name, (arm, sizes) in timed.items()
    }

"""What an evaluation folder holds: checked before it starts, recognised when it goes on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from distillspec.errors import DistillSpecError
from distillspec.measure.exact.prompt import MeasuredPrompt
from distillspec.measure.timed.memory import round_bytes
from distillspec.methods.build import most_drafted
from distillspec.methods.step_times import StepTimes
from distillspec.models.loading.digest import model_digest
from distillspec.models.runners.eager import context_of_model
from distillspec.recipe.suite import Suite
from distillspec.runtime import atomic, provenance
from distillspec.runtime.plain_files import BoundedText, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

_ROWS_FORMAT = 3  # 3: step times of whole blocks, whatever a stop rule or a lookup drafts

Steps = dict[tuple[str, float], StepTimes]
"""By method and temperature."""


class Prepared(NamedTuple):
    """What was found before the first block: step times, and by model the kind of runner it got."""

    steps: Steps
    runners: dict[str, str]


def check(
    suite: Suite,
    target: PreTrainedModel,
    drafts: Mapping[str, PreTrainedModel],
    prompts: Sequence[MeasuredPrompt],
) -> None:
    where = f"evaluation suite {suite.name}"
    if not prompts:
        raise DistillSpecError(
            "there are no prompts to evaluate on",
            where=where,
            fix="give prompts.source in the suite, or held-out prompts in the recipe",
        )
    if not any(name in drafts for name in suite.drafts):
        raise DistillSpecError(
            "there is no draft to evaluate",
            where=f"{where}: drafts",
            fix="name at least one draft that was made",
        )
    for model, method in suite.named_models().items():
        if model not in drafts:
            raise DistillSpecError(
                f"method '{method}' drafts with '{model}', a draft that was not made",
                where=f"{where}: methods",
                fix=f"name one of {', '.join(drafts)}, or make that draft first",
            )
    longest = max(len(prompt.tokens) for prompt in prompts)
    needed = longest + suite.max_new_tokens + suite.reach
    for name, one in {"target": target, **drafts}.items():
        holds, reason = context_of_model(one)
        if needed > holds:
            raise DistillSpecError(
                f"the longest prompt has {longest} tokens; max_new_tokens and a block make these "
                f"{needed} positions, and the {name} has {holds}{reason and ': ' + reason}",
                where=where,
                fix="lower max_new_tokens in the suite, or data.max_prompt_tokens in the recipe",
            )
    _check_memory(suite, target, list(drafts.values()), longest, where)
    if len(prompts) < suite.prompts.most:
        log.warning("the suite asks for %d prompts, %d exist", suite.prompts.most, len(prompts))


def _check_memory(
    suite: Suite,
    target: PreTrainedModel,
    drafts: Sequence[PreTrainedModel],
    longest: int,
    where: str,
) -> None:
    """Before anything is compiled: K and gamma multiply."""
    text, there_is = longest + suite.max_new_tokens, _memory(target.device)
    for method, gamma, drafted in most_drafted(suite):
        judged = drafted if method.parallel is None else gamma
        needed = round_bytes(target, drafts, text=text, drafted=drafted, judged=judged)
        if needed > there_is:
            raise DistillSpecError(
                f"a round of {method.name!r} at gamma {gamma} drafts up to {drafted:,} tokens; "
                f"decoding with it needs about {needed / 2**30:.1f} GiB beside the weights, and "
                f"there are {there_is / 2**30:.1f}",
                where=where,
                fix="lower draft.count or the gamma of that method (or nodes, layers)",
            )


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return provenance.memory_bytes()


def plan_of(
    suite: Suite,
    target: PreTrainedModel,
    drafts: Mapping[str, PreTrainedModel],
    prompts: Sequence[MeasuredPrompt],
    device: torch.device | str,
    again: str | None = None,
) -> dict[str, Any]:
    """What the rows of a folder depend on; rows of another plan must not be mixed in.

    again: the cell that is timed a second time.
    """
    cells = suite.model_dump(
        mode="json",
        include={
            "seed",
            "methods",
            "gammas",
            "temperatures",
            "top_k",
            "nucleus",
            "max_new_tokens",
            "repeats",
            "runner",
        },
    )
    for method in cells["methods"]:  # its key of 0.1, so that folders begun with that go on
        method["valve"] = method.pop("fallback")
    if again is not None:
        cells["noise_floor"] = again
    if suite.audit:  # named only then: folders that were begun without it stay as they are
        cells["audit"] = True
    texts = json.dumps([[p.key, list(p.tokens), p.category] for p in prompts])
    return {
        **cells,
        "format of its rows": _ROWS_FORMAT,
        "device": torch.device(device).type,
        "prompts": f"{len(prompts)}, sha256 {hashlib.sha256(texts.encode()).hexdigest()}",
        "target": model_digest(target),
        "drafts": {name: model_digest(model) for name, model in drafts.items()},
    }


class _Stored(NamedTuple):
    plan: dict[str, Any]
    runners: dict[str, str]
    steps: list[tuple[str, float, StepTimes]]


def read_plan(path: Path, plan: Mapping[str, Any]) -> Prepared | None:
    """What an earlier process found on the same plan; None where nothing was begun."""
    if not path.exists():
        return None
    fix = "delete the evaluation folder, then evaluate again"
    found = read_json(BoundedText(path, "the plan of this evaluation", fix), _Stored)
    differing = [key for key in plan if found.plan.get(key) != plan[key]]
    differing += [key for key in found.plan if key not in plan]
    steps = {(method, t): times for method, t, times in found.steps}
    if differing:
        raise DistillSpecError(
            f"this folder holds an evaluation with other {', '.join(differing)}",
            where=str(path.parent),
            fix="delete that folder, or evaluate into another one",
        )
    return Prepared(steps, found.runners)


def was_begun_without(path: Path, key: str) -> bool:
    """Whether an earlier process began here, on a plan without this key."""
    try:
        return key not in json.loads(path.read_text(encoding="utf-8"))["plan"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # nothing was begun, or `read_plan` says what is wrong


def write_plan(path: Path, plan: Mapping[str, Any], prepared: Prepared) -> None:
    listed = [[*key, asdict(times)] for key, times in prepared.steps.items()]
    atomic.write_json(path, {"plan": dict(plan), "runners": prepared.runners, "steps": listed})

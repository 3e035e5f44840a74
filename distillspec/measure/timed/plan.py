"""The plan of an evaluation folder: checked before decoding, compared when it is resumed."""

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
from distillspec.measure.stats.intervals import FEWEST
from distillspec.measure.timed.memory import round_bytes
from distillspec.methods.build import max_drafted
from distillspec.methods.step_times import StepTimes
from distillspec.models.loading.digest import model_digest
from distillspec.models.runners.eager import context_of_model
from distillspec.recipe.suite import Suite
from distillspec.runtime import atomic, provenance
from distillspec.runtime.plain_files import BoundedText, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

_ROWS_FORMAT = 4  # 4: step times of whole rounds of the engine, by gamma

Steps = dict[tuple[str, float], StepTimes]
"""By method and temperature."""


class Prepared(NamedTuple):
    """What is known before the first block.

    Attributes:
        steps: Step times by method and temperature.
        runners: The class of the runner by model.
    """

    steps: Steps
    runners: dict[str, str]


def check(
    suite: Suite,
    target: PreTrainedModel,
    drafts: Mapping[str, PreTrainedModel],
    prompts: Sequence[MeasuredPrompt],
) -> None:
    """Raise DistillSpecError if the suite cannot be decoded with these models and prompts."""
    where = f"evaluation suite {suite.name}"
    # 1. There are prompts, and all drafts that the methods name.
    if not prompts:
        raise DistillSpecError(
            "there are no prompts to evaluate on",
            where=where,
            fix="set prompts.source in the suite, or add held-out prompts to the recipe",
        )
    if not any(name in drafts for name in suite.drafts):
        raise DistillSpecError(
            "there is no draft to evaluate",
            where=f"{where}: drafts",
            fix="name at least one draft that exists",
        )
    for needed_draft, method in suite.named_models().items():
        if needed_draft not in drafts:
            raise DistillSpecError(
                f"method '{method}' drafts with '{needed_draft}', a draft that does not exist",
                where=f"{where}: methods",
                fix=f"use one of {', '.join(drafts)}, or train that draft first",
            )
    # 2. The longest text and a block fit into every context.
    longest = max(len(prompt.tokens) for prompt in prompts)
    needed = longest + suite.max_new_tokens + suite.reach
    for name, model in {"target": target, **drafts}.items():
        holds, reason = context_of_model(model)
        if needed > holds:
            raise DistillSpecError(
                f"the longest prompt has {longest} tokens. With max_new_tokens and a block, "
                f"decoding needs {needed} positions, and the {name} has {holds}"
                f"{reason and ': ' + reason}",
                where=where,
                fix="lower max_new_tokens in the suite, or data.max_prompt_tokens in the recipe",
            )
    # 3. The rounds fit into memory. Too few prompts give only a warning.
    _check_memory(suite, target, list(drafts.values()), longest, where)
    if len(prompts) < suite.prompts.most:
        log.warning("the suite asks for %d prompts, %d exist", suite.prompts.most, len(prompts))
    documents = len({prompt.document for prompt in prompts[: suite.prompts.count]})
    if documents < FEWEST:
        log.warning(no_verdict(documents))


def no_verdict(documents: int) -> str:
    """The warning that an evaluation on so few documents gives no verdict."""
    return (
        f"the evaluation decodes prompts of {documents} documents, and a verdict needs at least "
        f"{FEWEST}: it will give numbers and no verdict. Raise prompts.count in the suite, or hold "
        "out more documents (data.held_out_percent, data.held_out)"
    )


def _check_memory(
    suite: Suite,
    target: PreTrainedModel,
    drafts: Sequence[PreTrainedModel],
    longest: int,
    where: str,
) -> None:
    """Raise before compilation if a round needs too much memory: K and gamma multiply."""
    text, available = longest + suite.max_new_tokens, _memory(target.device)
    for method, gamma, drafted in max_drafted(suite):
        # A parallel draft runs ahead, but at most gamma of its tokens are verified at once.
        judged = drafted if method.parallel is None else gamma
        needed = round_bytes(target, drafts, text=text, drafted=drafted, judged=judged)
        if needed > available:
            raise DistillSpecError(
                f"a round of {method.name!r} at gamma {gamma} drafts up to {drafted:,} tokens; "
                f"decoding needs about {needed / 2**30:.1f} GiB in addition to the weights, and "
                f"{available / 2**30:.1f} GiB are available",
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
    """What the rows of a folder depend on. Rows of another plan must not be mixed in.

    Args:
        suite, target, drafts, prompts, device: As of the evaluation.
        again: The cell that is timed a second time, if any.
    """
    # Only settings that change rows; others, such as the confidence, may differ later.
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
    if suite.audit:  # only then, so that older folders keep their plan
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
    """What an earlier process prepared for the same plan; None without one.

    Raises:
        DistillSpecError: The folder holds another plan.
    """
    if not path.exists():
        return None
    fix = "delete the evaluation folder, then evaluate again"
    stored = read_json(BoundedText(path, "the plan of this evaluation", fix), _Stored)
    # A key that only one of the plans has is a difference, too.
    differing = [key for key in plan if stored.plan.get(key) != plan[key]]
    differing += [key for key in stored.plan if key not in plan]
    steps = {(method, t): times for method, t, times in stored.steps}
    if differing:
        raise DistillSpecError(
            f"this folder holds an evaluation with different {', '.join(differing)}",
            where=str(path.parent),
            fix="delete that folder, or evaluate into another folder",
        )
    return Prepared(steps, stored.runners)


def was_begun_without(path: Path, key: str) -> bool:
    """Whether the folder has a plan without this key."""
    try:
        return key not in json.loads(path.read_text(encoding="utf-8"))["plan"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # no plan yet, or `read_plan` reports what is wrong


def write_plan(path: Path, plan: Mapping[str, Any], prepared: Prepared) -> None:
    listed = [[*key, asdict(times)] for key, times in prepared.steps.items()]
    atomic.write_json(path, {"plan": dict(plan), "runners": prepared.runners, "steps": listed})

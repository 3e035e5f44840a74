"""The prompts that a suite brings: of one source, or of several that take turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, Literal, NamedTuple

from distillspec.corpus.sources.prompts import Prompt, load_all
from distillspec.corpus.sources.tokenizing import Tokenizer
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.eos_tokens import EosTokens
from distillspec.recipe.data import DataConfig, HubSource, JsonlSource
from distillspec.recipe.prompt_plan import PromptsConfig


class Traffic(NamedTuple):
    """prompts: the first `count` of a plan are what is decoded, in the plan's order, and those
    after them are only read. notes: what was left out, one line each, for the user.
    """

    prompts: list[Prompt]
    notes: list[str]


def load_traffic(
    plan: PromptsConfig,
    data: DataConfig,
    tokenizer: Tokenizer,
    *,
    seed: int,
    room: int,
    start: int | None = None,
    variables: Mapping[str, Any] | None = None,
    stops: EosTokens | None = None,
) -> Traffic:
    """The prompts of `plan`, which brings some; of several sources each with its name as category.

    room: tokens that a prompt may have in the models' contexts. start, variables, stops: as
    `load_prompts` has them.
    Errors: as the sources'; one of several that gives less than its part; one that gives nothing.
    """
    limited, limit = _limited(plan, data, room)
    notes: list[str] = []
    shares = _shares(plan.most, len(plan.named))
    found: dict[str, list[Prompt]] = {}
    decoded = dict(zip(plan.named, _shares(plan.count, len(plan.named)), strict=True))
    for (section, source), share in zip(plan.named.items(), shares, strict=True):
        mine: list[str] = []
        prompts = load_all(
            source,
            limited,
            tokenizer,
            seed=seed,
            most=share,
            notes=mine,
            section=section,
            limit=limit,
            start=start,
            variables=variables,
            stops=stops,
        )
        is_asked = isinstance(source, JsonlSource | HubSource) and source.as_chat != "never"
        if is_asked and tokenizer.chat_template is None:
            mine.append("asked as plain text: the target's tokenizer has no chat template")
        if plan.sources and len(prompts) < decoded[section]:
            raise DistillSpecError(
                f"this source gives {len(prompts)} prompts, and its part is {decoded[section]}",
                where=section,
                fix="lower prompts.count, raise prompts.max_tokens, or take a larger source",
            )
        found[section] = prompts
        notes += [f"{section}: {note}" for note in mine]
    if plan.source is not None:
        return Traffic(found["prompts.source"], notes)
    named = {
        section.removeprefix("prompts.sources."): prompts for section, prompts in found.items()
    }
    return Traffic(_mixed(named, plan.count, plan.order), notes)


def _limited(plan: PromptsConfig, data: DataConfig, room: int) -> tuple[DataConfig, str]:
    """The limits of `data` with the plan's longest prompt, and what sets that."""
    wanted = plan.max_tokens or data.max_prompt_tokens
    if wanted > room:
        name, wanted = f"what fits into the models' contexts, {room}", room
    elif plan.max_tokens:
        name = f"prompts.max_tokens={wanted}"
    else:
        name = f"data.max_prompt_tokens={wanted}"
    return data.model_copy(update={"max_prompt_tokens": wanted}), name


def _shares(total: int, parts: int) -> list[int]:
    """`total` as evenly as it goes; the first parts have what is left over."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def _mixed(
    named: Mapping[str, Sequence[Prompt]], count: int, order: Literal["in-turn", "alternating"]
) -> list[Prompt]:
    """The decoded prompts first, in `order`; keys are unique, categories the sources' names."""
    decoded, rest = [], []
    for (name, prompts), share in zip(named.items(), _shares(count, len(named)), strict=True):
        dressed = [
            p._replace(key=f"{name}/{p.key}", category=name, part_of=f"{name}/{p.document}")
            for p in prompts
        ]
        decoded.append(dressed[:share])
        rest += dressed[share:]
    turns = decoded if order == "in-turn" else zip_longest(*decoded)
    return [*(p for p in chain.from_iterable(turns) if p is not None), *rest]

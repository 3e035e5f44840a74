"""The prompts of a suite that names its sources: one source, or several in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, Literal, NamedTuple

from distillspec.corpus.sources.prompts import Prompt, load_source_prompts
from distillspec.corpus.sources.tokenizing import Tokenizer
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.eos_tokens import EosTokens
from distillspec.recipe.data import DataConfig, HubSource, JsonlSource
from distillspec.recipe.prompt_plan import PromptsConfig


class SuitePrompts(NamedTuple):
    """The prompts of a suite.

    Attributes:
        prompts: The first `count` prompts of the plan are decoded, in the plan's order. The target
            only reads the prompts after them.
        notes: One line per reason for leaving prompts out, for the user.
    """

    prompts: list[Prompt]
    notes: list[str]


def load_suite_prompts(
    plan: PromptsConfig,
    data: DataConfig,
    tokenizer: Tokenizer,
    *,
    seed: int,
    room: int,
    start: int | None = None,
    variables: Mapping[str, Any] | None = None,
    stops: EosTokens | None = None,
) -> SuitePrompts:
    """The prompts of `plan`, which names at least one source.

    With several sources, the category of a prompt is the name of its source.

    Args:
        plan: The sources and the number of prompts.
        data: The limits of the recipe.
        tokenizer: The target's tokenizer.
        seed: Decides which prompts are taken, and their order.
        room: Tokens that a prompt may have in the models' contexts.
        start: See `load_prompts`.
        variables: See `load_prompts`.
        stops: See `load_prompts`.

    Raises:
        DistillSpecError: A source cannot be read, or gives fewer prompts than its part.
    """
    # 1. How many prompts each source gives, and how many of them are decoded.
    limited, limit = _limited(plan, data, room)
    notes: list[str] = []
    shares = _shares(plan.most, len(plan.named))
    by_section: dict[str, list[Prompt]] = {}
    decoded = dict(zip(plan.named, _shares(plan.count, len(plan.named)), strict=True))
    # 2. The prompts of each source.
    for (section, source), share in zip(plan.named.items(), shares, strict=True):
        source_notes: list[str] = []
        prompts = load_source_prompts(
            source,
            limited,
            tokenizer,
            seed=seed,
            most=share,
            notes=source_notes,
            section=section,
            limit=limit,
            start=start,
            variables=variables,
            stops=stops,
        )
        is_asked = isinstance(source, JsonlSource | HubSource) and source.as_chat != "never"
        if is_asked and tokenizer.chat_template is None:
            source_notes.append("asked as plain text: the target's tokenizer has no chat template")
        if plan.sources and len(prompts) < decoded[section]:
            raise DistillSpecError(
                f"this source gives {len(prompts)} prompts, and its part is {decoded[section]}",
                where=section,
                fix="lower prompts.count, raise prompts.max_tokens, or take a larger source",
            )
        by_section[section] = prompts
        notes += [f"{section}: {note}" for note in source_notes]
    # 3. One source stays as it is; several are mixed.
    if plan.source is not None:
        return SuitePrompts(by_section["prompts.source"], notes)
    named = {
        section.removeprefix("prompts.sources."): prompts for section, prompts in by_section.items()
    }
    return SuitePrompts(_mixed(named, plan.count, plan.order), notes)


def _limited(plan: PromptsConfig, data: DataConfig, room: int) -> tuple[DataConfig, str]:
    """The limits of `data` with the plan's longest prompt, and the name of what sets it."""
    wanted = plan.max_tokens or data.max_prompt_tokens
    if wanted > room:
        name, wanted = f"what fits into the models' contexts, {room}", room
    elif plan.max_tokens:
        name = f"prompts.max_tokens={wanted}"
    else:
        name = f"data.max_prompt_tokens={wanted}"
    return data.model_copy(update={"max_prompt_tokens": wanted}), name


def _shares(total: int, parts: int) -> list[int]:
    """Divide `total` as evenly as possible; the first parts take the remainder."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def _mixed(
    named: Mapping[str, Sequence[Prompt]], count: int, order: Literal["in-turn", "alternating"]
) -> list[Prompt]:
    """The decoded prompts in `order`, then the others; each is marked with its source's name."""
    decoded, rest = [], []
    for (name, prompts), share in zip(named.items(), _shares(count, len(named)), strict=True):
        marked = [
            p._replace(key=f"{name}/{p.key}", category=name, part_of=f"{name}/{p.document}")
            for p in prompts
        ]
        decoded.append(marked[:share])
        rest += marked[share:]
    turns = decoded if order == "in-turn" else zip_longest(*decoded)
    return [*(p for p in chain.from_iterable(turns) if p is not None), *rest]

"""The head of the report's page: facts about the evaluation, and the answer first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distillspec.measure.stats.intervals import FEWEST
from distillspec.measure.summary.records import Recommendation, Summary
from distillspec.recipe.hub_id import is_hub_id
from distillspec.recipe.published import published_at
from distillspec.report.figures.theme import degrees
from distillspec.text.numbers import NO_INTERVAL, interval, known


class Answer(NamedTuple):
    question: str
    answer: str


class Tile(NamedTuple):
    """The best configuration at one temperature, and what people ask about it."""

    label: str
    number: str
    answers: list[Answer]


def title(summary: Summary) -> str:
    """Target and draft by the last two parts of their names, and the suite."""
    models = _mapping(summary.environment, "models")
    names = [_name(_mapping(models, role).get("path")) for role in ("target", "undistilled")]
    suite = summary.suite or "evaluation"
    if not all(names):
        return f"Speculative decoding: {suite}"
    return f"{names[0]} with the draft {names[1]}: {suite}"


def _name(path: Any) -> str:
    if not isinstance(path, str) or is_hub_id(path):
        return path or ""
    published = published_at(Path(path))
    if published is not None and published.role == "target":
        return published.model.hub_id
    parts = Path(path).parts
    # A made draft has no folder: its name is in words.
    return path if len(parts) <= 2 else "/".join(["...", *parts[-2:]])


def facts(summary: Summary) -> list[str]:
    """What was measured, on which machine, when."""
    machine = _mapping(summary.environment, "machine")
    target = _mapping(_mapping(summary.environment, "models"), "target")
    texts = [
        f"{summary.prompts} prompts × {summary.max_new_tokens} tokens",
        f"alpha and expected tau on {summary.texts} texts of the target",
        f"{summary.confidence:.0%} intervals over {summary.documents or '?'} documents "
        f"({summary.text_documents or '?'} of the texts)",
        f"target {_count(target.get('parameters'))} parameters, {target.get('dtype', '?')}",
        str(machine.get("cpu", "")),
        summary.created,
    ]
    return [text for text in texts if text]


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of the environment; empty where a file has something else."""
    value = values.get(name)
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> str:
    return f"{value / 1e6:.1f} M" if isinstance(value, int) else "?"


def tiles(summary: Summary) -> list[Tile]:
    """At each temperature, the best that engines can run with the shown draft.

    A faster method that engines do not have is named below it.
    """
    shown = []
    for temperature in summary.temperatures():
        fastest = summary.fastest(summary.shown_draft, temperature)
        best = summary.servable(summary.shown_draft, temperature) or fastest
        if best is not None:
            shown.append(_tile(summary, best, fastest, temperature))
    return shown


def _tile(
    summary: Summary, best: Recommendation, fastest: Recommendation | None, temperature: float
) -> Tile:
    answers = [
        Answer("Is it faster?", _is_faster(summary, best)),
        Answer("By how much?", _by_how_much(summary, best, temperature)),
        Answer("With which settings?", _settings(summary, best)),
        Answer("How sure?", _how_sure(summary, best)),
    ]
    if fastest is not None and fastest is not best:
        answers.append(
            Answer(
                "Can it be faster?",
                f"in this engine: {fastest.method}, gamma {fastest.gamma}, "
                f"{known(fastest.speedup.value, unit='×')}",
            )
        )
    label = f"{best.draft} draft, {degrees(temperature)}"
    return Tile(label, known(best.speedup.value, unit="×"), answers)


def _is_faster(summary: Summary, best: Recommendation) -> str:
    if not math.isfinite(best.speedup.low + best.speedup.high):
        return "not known: there is no interval"
    # 0 documents: a summary of an earlier version, which does not count them.
    if 0 < summary.documents < FEWEST:
        return f"not known: {summary.documents} documents are too few for a verdict"
    if best.speedup.low > 1.0:
        return "yes"
    if best.speedup.high < 1.0:
        return "no, slower than the target alone: do not speculate"
    return "not shown: the interval contains 1"


def _by_how_much(summary: Summary, best: Recommendation, temperature: float) -> str:
    cell = summary.cell(best.draft, best.method, best.gamma, temperature)
    assert cell is not None
    plain = next((b for b in summary.baseline if b.temperature == temperature), None)
    alone = math.nan if plain is None else plain.tokens_per_second.value
    text = (
        f"{known(cell.tokens_per_second, '.0f', ' tokens/s')}, the target alone "
        f"{known(alone, '.0f')}; {known(cell.tau.value)} tokens per target forward, alpha "
        f"{known(cell.alpha.value, '.3f')}"
    )
    if temperature:
        text += f" (argmax drafts {known(cell.alpha_argmax.value, '.3f')})"
    before = summary.cell("undistilled", best.method, best.gamma, temperature)
    if before is not None and before is not cell:
        text += f"; undistilled {known(before.speedup.value, unit='×')}"
    return text


def _settings(summary: Summary, best: Recommendation) -> str:
    if best.method not in summary.standard_methods:
        return f"{best.method}, gamma {best.gamma}; no serving engine has this method"
    return (
        f"gamma {best.gamma}: num_speculative_tokens={best.gamma} (vLLM), "
        f"num_assistant_tokens={best.gamma} (transformers)"
    )


def _how_sure(summary: Summary, best: Recommendation) -> str:
    bounds = interval(best.speedup.low, best.speedup.high, without=NO_INTERVAL)
    text = f"{summary.confidence:.0%} interval {bounds} over {summary.documents or '?'} documents"
    doubts = len(summary.cautions)
    counted = "1 caution" if doubts == 1 else f"{doubts} cautions"
    return text + (f"; {counted} among the findings" if doubts else "")

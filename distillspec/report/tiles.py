"""The head of the report's page: facts about the evaluation, and the answer first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from distillspec.measure.summary.records import Recommendation, Summary
from distillspec.report.figures.theme import degrees
from distillspec.text.numbers import NO_INTERVAL, interval, known


class Tile(NamedTuple):
    """The best configuration at one temperature."""

    label: str
    number: str
    lines: list[str]


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
    cell = summary.cell(best.draft, best.method, best.gamma, temperature)
    assert cell is not None
    method = f", {best.method}" if len(summary.methods()) > 1 else ""
    bounds = interval(best.speedup.low, best.speedup.high, without=NO_INTERVAL)
    before = summary.cell("undistilled", best.method, best.gamma, temperature)
    if before is not None and before is not cell:
        bounds += f", undistilled {known(before.speedup.value, unit='×')}"
    argmax = f" (argmax drafts {known(cell.alpha_argmax.value, '.3f')})" if temperature else ""
    lines = [
        bounds,
        f"{known(cell.tokens_per_second, '.0f', ' tokens/s')}, tau {known(cell.tau.value)}, "
        f"expected tau {known(cell.expected_tau.value)}, alpha {known(cell.alpha.value, '.3f')}"
        f"{argmax}",
    ]
    if fastest is not None and fastest is not best:
        lines.append(
            f"fastest of all methods: {fastest.method}, gamma {fastest.gamma}, "
            f"{known(fastest.speedup.value, unit='×')}"
        )
    label = f"{best.draft}, {degrees(temperature)}{method}, gamma {best.gamma}"
    return Tile(label, known(best.speedup.value, unit="×"), lines)

"""What frames the report's page: head, the answer first, definitions, environment; all escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from distillspec.measure.summary.records import Recommendation, Summary
from distillspec.report.figures.theme import degrees
from distillspec.text.numbers import NO_INTERVAL, interval, known


def head(summary: Summary, title: str) -> str:
    machine = _mapping(summary.environment, "machine")
    target = _mapping(_mapping(summary.environment, "models"), "target")
    facts = [
        f"{summary.prompts} prompts × {summary.max_new_tokens} tokens",
        f"alpha and expected tau on {summary.texts} texts of the target",
        f"{summary.confidence:.0%} intervals over {summary.documents or '?'} documents "
        f"({summary.text_documents or '?'} of the texts)",
        f"target {_count(target.get('parameters'))} parameters, {target.get('dtype', '?')}",
        str(machine.get("cpu", "")),
        summary.created,
    ]
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="facts">{" · ".join(escape(fact) for fact in facts if fact)}</p></header>'
    )


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of what a summary says of its machine; empty where a file has something else."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def tiles(summary: Summary) -> str:
    """The answer first: at each temperature, the best that engines can run with the shown draft.

    A faster method that they do not have is named below it.
    """
    draft = summary.shown_draft
    tiles = []
    for temperature in summary.temperatures():
        fastest = summary.fastest(draft, temperature)
        one = summary.servable(draft, temperature) or fastest
        if one is not None:
            tiles.append(_tile(summary, one, fastest))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(summary: Summary, one: Recommendation, fastest: Recommendation | None) -> str:
    temperature = one.temperature
    assert temperature is not None
    cell = summary.cell(one.draft, one.method, one.gamma, temperature)
    assert cell is not None
    several = len(summary.methods()) > 1
    method = f", {one.method}" if several else ""
    lines = [
        f"{one.draft}, {degrees(temperature)}{method}, gamma {one.gamma}",
        known(one.speedup, unit="×"),
        interval(one.speedup_low, one.speedup_high, without=NO_INTERVAL),
        f"{known(cell.tokens_per_second, '.0f', ' tokens/s')}, tau {known(cell.tau)}, "
        f"expected tau {known(cell.expected_tau)}, alpha {known(cell.alpha, '.3f')}"
        + (f" (argmax drafts {known(cell.alpha_argmax, '.3f')})" if temperature else ""),
    ]
    before = summary.cell("undistilled", one.method, one.gamma, temperature)
    if before is not None and before is not cell:
        lines[2] += f", undistilled {known(before.speedup, unit='×')}"
    if fastest is not None and fastest is not one:
        lines.append(
            f"fastest of all methods: {fastest.method}, gamma {fastest.gamma}, "
            f"{known(fastest.speedup, unit='×')}"
        )
    kinds = ("label", "number", *["interval"] * (len(lines) - 2))
    divisions = (
        f'<div class="{kind}">{escape(line)}</div>' for kind, line in zip(kinds, lines, strict=True)
    )
    return f'<div class="tile">{"".join(divisions)}</div>'


def _count(value: Any) -> str:
    return f"{value / 1e6:.1f} M" if isinstance(value, int) else "?"


def definitions(definitions: Mapping[str, str]) -> str:
    return (
        "<dl>"
        + "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in definitions.items()
        )
        + "</dl>"
    )


def environment(environment: Mapping[str, Any]) -> str:
    text = json.dumps(environment, indent=2, ensure_ascii=False)
    return (
        "<details><summary>command, code, versions, machine, models</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )

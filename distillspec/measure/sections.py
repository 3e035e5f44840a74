"""What frames the report's page: head, the answer first, definitions, environment; all escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from distillspec.measure.drawing import degrees
from distillspec.measure.summary import Summary


def head(summary: Summary, title: str) -> str:
    models = summary.environment.get("models", {})
    machine = summary.environment.get("machine", {})
    target = models.get("target", {})
    facts = [
        f"{summary.prompts} prompts × {summary.max_new_tokens} tokens",
        f"alpha and expected tau on {summary.texts} texts of the target",
        f"{summary.confidence:.0%} intervals over prompts",
        f"target {_count(target.get('parameters'))} parameters, {target.get('dtype', '?')}",
        str(machine.get("cpu", "")),
        summary.created,
    ]
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="facts">{" · ".join(escape(fact) for fact in facts if fact)}</p></header>'
    )


def tiles(summary: Summary) -> str:
    """The answer first: at each temperature, the best measured speed-up of the shown draft."""
    names = summary.drafts()
    shown = "distilled" if "distilled" in names else names[-1]
    tiles = []
    for one in summary.recommendation:
        if one.draft != shown or one.temperature is None:
            continue
        cell = summary.cell(one.draft, one.method, one.gamma, one.temperature)
        assert cell is not None
        before = summary.cell("undistilled", one.method, one.gamma, one.temperature)
        was = "" if before is None or before is cell else f", undistilled {before.speedup:.2f}×"
        tiles.append(
            f'<div class="tile"><div class="label">{escape(shown)}, '
            f"{escape(degrees(one.temperature))}, gamma {one.gamma}</div>"
            f'<div class="number">{one.speedup:.2f}×</div>'
            f'<div class="interval">{one.speedup_low:.2f} to {one.speedup_high:.2f}{was}</div>'
            f'<div class="interval">{cell.tokens_per_second:.0f} tokens/s, tau {cell.tau:.2f}, '
            f"expected tau {cell.expected_tau:.2f}, alpha {cell.alpha:.3f}</div></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


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

"""The parts of the report's page that are text and tables; everything foreign is escaped."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from distillspec.measure.breakdown import FEW, CategoryCell
from distillspec.measure.drawing import degrees, ordered
from distillspec.measure.summary import (
    Cell,
    Comparison,
    Example,
    Oracle,
    Ranked,
    Recommendation,
    Summary,
)


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


def _table(
    columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], *, words: int = 1
) -> str:
    """rows: (class, cells). The first `words` columns are text, the others numbers."""
    kind = ["" if i < words else ' class="n"' for i in range(len(columns))]
    head = "".join(f"<th{k}>{escape(c)}</th>" for k, c in zip(kind, columns, strict=True))
    body = "".join(
        f'<tr class="{escape(style)}">'
        + "".join(f"<td{k}>{escape(c)}</td>" for k, c in zip(kind, cells, strict=True))
        + "</tr>"
        for style, cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None or not math.isfinite(value) else format(value, form)


def _count(value: Any) -> str:
    return f"{value / 1e6:.1f} M" if isinstance(value, int) else "?"


def comparisons(summary: Summary) -> str:
    columns = ("draft", "against", "T", "gamma", "of", "against", "draft", "difference")
    more = (f"{summary.confidence:.0%} interval", "relative", "verdict")
    return _table((*columns, *more), [_comparison(one) for one in summary.comparisons], words=2)


def _comparison(one: Comparison) -> tuple[str, list[str]]:
    form = {"tau": ".2f", "speed": ".0f"}.get(one.quantity, ".3f")
    cells = [
        one.draft,
        one.against,
        f"{one.temperature:g}",
        "" if one.gamma is None else str(one.gamma),
        "tokens/s" if one.quantity == "speed" else one.quantity,
        _number(one.against_value, form),
        _number(one.value, form),
        _number(one.difference, "+" + form),
        f"{_number(one.low, '+' + form)} to {_number(one.high, '+' + form)}",
        _number(one.relative, "+.1%"),
        one.verdict,
    ]
    return ("null" if one.verdict == "no difference shown" else one.verdict), cells


def recommendations(recommendation: Sequence[Recommendation]) -> str:
    rows = [
        (
            "",
            [
                one.draft,
                "all" if one.temperature is None else degrees(one.temperature),
                one.words,
            ],
        )
        for one in recommendation
    ]
    return _table(("draft", "temperature", "recommendation"), rows, words=3)


def ranking(ranking: Sequence[Ranked], oracles: Sequence[Oracle] = ()) -> str:
    """Of each temperature: what an oracle would reach, then the methods by speed.

    Busy shares are told where a method has them.
    """
    is_parallel = any(not math.isnan(one.target_busy) for one in ranking)
    columns = (
        "T",
        "draft",
        "method",
        "gamma",
        "tokens/s",
        "tau",
        "drafted per token",
        "of them wasted",
        "forwards per token",
        *(["target busy", "draft busy"] if is_parallel else []),
        "of the fastest",
        "interval",
        "",
    )
    ranked = [
        (
            one.temperature,
            "null" if one.verdict == "within noise of it" else "",
            [
                f"{one.temperature:g}",
                one.draft,
                one.method,
                str(one.gamma),
                _number(one.tokens_per_second, ".0f"),
                _number(one.tau),
                _number(one.drafted_per_token),
                _number(one.wasted_per_token),
                _number(one.forwards_per_token),
                *(
                    [_number(one.target_busy, ".0%"), _number(one.draft_busy, ".0%")]
                    if is_parallel
                    else []
                ),
                _number(1.0 + one.relative, ".0%"),
                f"{_number(1.0 + one.relative_low, '.0%')} to "
                f"{_number(1.0 + one.relative_high, '.0%')}",
                one.verdict,
            ],
        )
        for one in ranking
    ]
    hindsight = [(one.temperature, "null", _oracle(one, is_parallel)) for one in oracles]
    rows = sorted([*hindsight, *ranked], key=lambda row: row[0])
    return _table(columns, [(style, line) for _, style, line in rows], words=3)


def _oracle(one: Oracle, is_parallel: bool) -> list[str]:
    return [
        f"{one.temperature:g}",
        one.draft,
        f"oracle on {one.method}",
        str(one.gamma),
        _number(one.tokens_per_second, ".0f"),
        _number(one.tau),
        _number(one.drafted_per_token),
        _number(0.0),
        _number(one.forwards_per_token),
        *(["", ""] if is_parallel else []),
        _number(1.0 + one.relative, ".0%"),
        f"{_number(1.0 + one.relative_low, '.0%')} to {_number(1.0 + one.relative_high, '.0%')}",
        "oracle, not a method",
    ]


def regrets(summary: Summary) -> str:
    columns = (
        "T",
        "draft",
        "method",
        "in",
        "best arm",
        "of arms",
        "needed",
        "best arm's",
        "mean arm's",
        "beyond the best",
        f"{summary.confidence:.0%} interval",
        "mean arm beyond it",
    )
    rows = [
        (
            "null" if one.relative_low <= 0.0 <= one.relative_high else "",
            [
                f"{one.temperature:g}",
                one.draft,
                one.method,
                one.quantity,
                one.best_arm,
                f"{len(one.arms)}"
                + (f", not timed: {', '.join(one.untimed_arms)}" if one.untimed_arms else ""),
                *(_number(x, ".5g") for x in (one.chosen, one.best, one.mean)),
                _number(one.relative, "+.1%"),
                f"{_number(one.relative_low, '+.1%')} to {_number(one.relative_high, '+.1%')}",
                _number(one.mean / one.best - 1.0, "+.1%"),
            ],
        )
        for one in summary.regrets
    ]
    return _table(columns, rows, words=6)


def categories(summary: Summary) -> str:
    several = len(summary.methods()) > 1
    columns = (
        "category",
        "draft",
        *(["method"] if several else []),
        "T",
        "gamma",
        "prompts",
        "accepted",
        "interval",
        "tau",
        "interval",
        "speed-up",
        "interval",
    )
    note = (
        "<p>At the best measured gamma of each draft, method and temperature. Of categories with "
        f"fewer than {FEW} prompts only the counts are told. Each interval stands alone.</p>"
    )
    rows = [
        ("null" if one.prompts < FEW else "", _category(one, several))
        for one in summary.best_by_category()
    ]
    return note + _table(columns, rows, words=3 if several else 2)


def _category(one: CategoryCell, several: bool) -> list[str]:
    few = one.prompts < FEW
    return [
        one.category,
        one.draft,
        *([one.method] if several else []),
        f"{one.temperature:g}",
        str(one.gamma),
        str(one.prompts),
        f"{one.accepted} of {one.drafted}" if few else _number(one.draft_acceptance, ".1%"),
        _between(one.draft_acceptance_low, one.draft_acceptance_high, ".1%"),
        f"{one.emitted} in {one.verifications}" if few else _number(one.tau),
        _between(one.tau_low, one.tau_high, ".2f"),
        _number(one.speedup),
        _between(one.speedup_low, one.speedup_high, ".2f"),
    ]


def _between(low: float, high: float, form: str) -> str:
    exists = math.isfinite(low) and math.isfinite(high)
    return f"{_number(low, form)} to {_number(high, form)}" if exists else "–"


def cells(summary: Summary, names: Sequence[str]) -> str:
    several = len(summary.methods()) > 1
    columns = (
        "draft",
        *(["method"] if several else []),
        "T",
        "gamma",
        "alpha",
        "accepted",
        "tau",
        "interval",
        "expected tau",
        "interval",
        "c",
        "v",
        "predicted",
        "from alpha",
        "measured",
        "interval",
        "with prefill",
        "of predicted",
        "tokens/s",
        "break-even",
        "cap",
    )
    rows = [
        ("slow" if cell.speedup_high < 1.0 else "", _cell(cell, several))
        for name in names
        for cell in summary.cells
        if cell.draft == name
    ]
    return _table(columns, rows, words=2 if several else 1)


def _cell(cell: Cell, several: bool) -> list[str]:
    return [
        cell.draft,
        *([cell.method] if several else []),
        f"{cell.temperature:g}",
        str(cell.gamma),
        _number(cell.alpha, ".3f"),
        _number(cell.draft_acceptance, ".1%"),
        _number(cell.tau),
        f"{_number(cell.tau_low)} to {_number(cell.tau_high)}",
        _number(cell.expected_tau, ".3f"),
        f"{_number(cell.expected_tau_low, '.3f')} to {_number(cell.expected_tau_high, '.3f')}",
        _number(cell.draft_to_target_time, ".3f"),
        _number(cell.v),
        _number(cell.predicted_speedup) + "×",
        _number(cell.predicted_from_alpha) + "×",
        _number(cell.speedup) + "×",
        f"{_number(cell.speedup_low)} to {_number(cell.speedup_high)}",
        _number(cell.speedup_with_prefill) + "×",
        _number(cell.measured_over_predicted, ".0%"),
        _number(cell.tokens_per_second, ".0f"),
        _number(cell.break_even_alpha, ".3f"),
        f"{_number(cell.perfect_draft_cap)}× at {cell.perfect_draft_gamma}",
    ]


def baseline(summary: Summary) -> str:
    columns = (
        "temperature",
        "tokens/s",
        "interval",
        "one-token step, ms",
        "prefill, ms",
        "entropy, nats",
        "after end-of-text",
        "repeated 4-grams",
    )
    rows = [
        (
            "",
            [
                degrees(one.temperature),
                _number(one.tokens_per_second, ".0f"),
                f"{_number(one.tokens_per_second_low, '.0f')} to "
                f"{_number(one.tokens_per_second_high, '.0f')}",
                _number(1e3 * one.target_step_seconds),
                _number(1e3 * one.prefill_seconds, ".1f"),
                _number(one.entropy_nats),
                _number(one.after_end_share, ".1%"),
                _number(one.repeated_ngram_share, ".1%"),
            ],
        )
        for one in summary.baseline
    ]
    return _table(columns, rows)


def quality(summary: Summary) -> str:
    rows = [
        (
            "",
            [
                one.completions_of,
                one.metric,
                degrees(one.temperature),
                str(one.completions),
                ", ".join(f"{name} {_number(x, '.3g')}" for name, x in one.scores.items())
                or "no references",
            ],
        )
        for one in summary.quality
    ]
    note = (
        "<p>Speculative decoding is lossless: completions decoded with a draft must score like the "
        "target's own, up to the noise of sampling.</p>"
    )
    columns = ("completions of", "metric", "temperature", "completions", "scores")
    return note + _table(columns, rows, words=2)


def divergences(summary: Summary) -> str:
    rows = [
        ("", [one.prompt_key, one.draft, str(one.gamma), str(one.position), f"{one.gap:.3g}"])
        for one in summary.greedy_divergences
    ]
    note = (
        "<p>At temperature 0 both decoders must say the same. In low precision a forward over one "
        "token and one over several differ in the last bits, and where the target's two highest "
        "logits are nearly equal the argmax can flip.</p>"
    )
    columns = ("prompt", "draft", "gamma", "token", "gap of the two highest logits")
    return note + _table(columns, rows, words=2)


def examples(examples: Sequence[Example]) -> str:
    legend = "".join(
        f'<span class="key"><span class="piece {fate}">{fate}</span></span>'
        for fate in ("accepted", "corrected", "bonus")
    )
    parts = [
        f'<p class="legend">{legend} The prompt is the one whose tau is the median, so neither a '
        "good nor a bad day.</p>"
    ]
    for temperature in dict.fromkeys(one.temperature for one in examples):
        here = [one for one in examples if one.temperature == temperature]
        names = ordered([one.draft for one in here])
        here.sort(key=lambda one: names.index(one.draft))
        parts.append(
            f"<h3>{escape(degrees(temperature))}, gamma {here[0].gamma}</h3>"
            f"<details><summary>prompt: {escape(here[0].prompt_key)}</summary>"
            f'<pre class="prompt">{escape(here[0].prompt)}</pre></details>'
            f'<div class="examples">{"".join(_example(one) for one in here)}</div>'
        )
    return "".join(parts)


def _example(one: Example) -> str:
    pieces = "".join(
        f'<span class="piece {escape(piece.fate)}" title="{escape(piece.fate)}">'
        f"{_visible(piece.text)}</span>"
        for piece in one.pieces
    )
    return (
        f'<div class="example"><div class="label">{escape(one.draft)}: {len(one.pieces)} tokens in '
        f"{one.verifications} target forwards, tau {_number(one.tau)}</div>"
        f"<pre>{pieces}</pre></div>"
    )


def _visible(text: str) -> str:
    """Escaped; a line break keeps a mark, so that the token that made it can be seen."""
    return escape(text).replace("\n", '<span class="break">↵</span>\n')


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

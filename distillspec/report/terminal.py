"""The summary as a table in the terminal, with the findings in words below it."""

from __future__ import annotations

import math

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from distillspec.measure.summary.breakdown import FEW, CategoryCell
from distillspec.measure.summary.records import Cell, Oracle, Ranked, Summary
from distillspec.report.figures.theme import degrees, ordered
from distillspec.text.numbers import NONE, interval, number


def summary_table(summary: Summary) -> RenderableType:
    """One row a cell, grouped by temperature; the best gamma of every draft is bold."""
    confidence = f"{summary.confidence:.0%}"
    parts: list[RenderableType] = []
    for temperature in summary.temperatures():
        parts += [
            _heading(summary, temperature),
            _cells(summary, temperature, confidence),
            Text(""),
        ]
    if summary.comparisons:
        parts += [Text("Paired differences", style="bold"), _comparisons(summary), Text("")]
    if summary.ranking:
        parts += [Text("Methods by speed", style="bold"), _ranking(summary), Text("")]
    if summary.best_by_category():
        title = "By category, at the best gamma"
        parts += [Text(title, style="bold"), _categories(summary), Text("")]
    parts.append(Text("Findings", style="bold"))
    parts += [Padding(Text(f"- {note}"), (0, 0, 0, 1)) for note in summary.notes]
    return Group(*parts)


def _blank() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", collapse_padding=True)


def _heading(summary: Summary, temperature: float) -> Text:
    plain = next(one for one in summary.baseline if one.temperature == temperature)
    heading = Text.assemble(
        (degrees(temperature), "bold"),
        f"   autoregressive {number(plain.tokens_per_second, '.0f')} tokens/s"
        f"   {plain.prompts} prompts x {summary.max_new_tokens} tokens"
        f"   alpha and expected tau on {summary.texts}",
    )
    if plain.repeated_ngram_share is not None:
        heading.append(f"   repeated 4-grams {number(plain.repeated_ngram_share, '.0%')}")
    return heading


def _cells(summary: Summary, temperature: float, confidence: str) -> Table:
    table = _blank()
    table.add_column("draft")
    several = len(summary.methods()) > 1
    if several:
        table.add_column("method")
    for name in (
        "gamma",
        "alpha",
        *(["argmax"] if temperature else []),
        "accepted",
        "expected tau",
        "tau",
        "c",
        "v",
        "predicted",
        "speed-up",
    ):
        table.add_column(name, justify="right")
    table.add_column(confidence, justify="right")
    table.add_column("tokens/s", justify="right")
    for draft in ordered(summary.drafts()):
        mine = [c for c in summary.cells if c.draft == draft and c.temperature == temperature]
        best = max((c.speedup for c in mine if math.isfinite(c.speedup)), default=math.nan)
        for cell in mine:
            style = "bold" if cell.speedup == best else ""
            if cell.speedup < 1.0:
                style += " red"
            table.add_row(
                draft,
                *([cell.method] if several else []),
                *_numbers(cell),
                style=style.strip(),
                end_section=cell is mine[-1],
            )
    return table


def _numbers(cell: Cell) -> list[str]:
    return [
        str(cell.gamma),
        number(cell.alpha, ".3f"),
        *([number(cell.alpha_argmax, ".3f")] if cell.temperature else []),
        number(cell.draft_acceptance, ".1%"),
        number(cell.expected_tau, ".3f"),
        number(cell.tau, ".2f"),
        number(cell.draft_to_target_time, ".3f"),
        number(cell.v, ".2f"),
        number(cell.predicted_speedup, ".2f", "x"),
        number(cell.speedup, ".2f", "x"),
        interval(cell.speedup_low, cell.speedup_high, between=" - "),
        number(cell.tokens_per_second, ".0f"),
    ]


def _ranking(summary: Summary) -> Table:
    table = _blank()
    table.add_column("T", justify="right")
    for name in ("draft", "method"):
        table.add_column(name)
    for name in (
        "gamma",
        "tokens/s",
        "tau",
        "drafted",
        "wasted",
        "forwards",
        "of the fastest",
        f"{summary.confidence:.0%}",
    ):
        table.add_column(name, justify="right")
    table.add_column("")
    for place, one in enumerate(summary.ranking):
        if not place or one.temperature != summary.ranking[place - 1].temperature:
            for best in summary.oracles:
                if best.temperature == one.temperature:
                    line = _ranked(best, f"oracle on {best.method}", 0.0, "oracle, not a method")
                    table.add_row(*line, style="dim italic")
        table.add_row(
            *_ranked(one, one.method, one.wasted_per_token, one.verdict),
            style={"fastest": "bold", "slower": "dim"}.get(one.verdict, ""),
        )
    return table


def _range(low: float, high: float) -> str:
    """Two prompts bound little, and one nothing."""
    return interval(low, high, ".0%", " - ") if high < 100.0 else NONE


def _ranked(one: Ranked | Oracle, method: str, wasted: float, verdict: str) -> list[str]:
    return [
        f"{one.temperature:g}",
        one.draft,
        method,
        str(one.gamma),
        number(one.tokens_per_second, ".0f"),
        number(one.tau),
        number(one.drafted_per_token),
        number(wasted, ".2f"),
        number(one.forwards_per_token),
        number(1.0 + one.relative, ".0%"),
        _range(1.0 + one.relative_low, 1.0 + one.relative_high),
        verdict,
    ]


def _categories(summary: Summary) -> Table:
    """Of the distilled draft, or the last one; the report has the others."""
    draft = summary.shown_draft
    table = _blank()
    table.add_column("T", justify="right")
    for name in ("category", "method"):
        table.add_column(name)
    confidence = f"{summary.confidence:.0%}"
    for name in ("gamma", "prompts", "accepted", confidence, "tau", "speed-up", confidence):
        table.add_column(name, justify="right")
    for one in summary.best_by_category():
        if one.draft == draft:
            table.add_row(
                f"{one.temperature:g}",
                one.category,
                one.method,
                str(one.gamma),
                str(one.prompts),
                *_rates(one),
                style="dim" if one.prompts < FEW else "",
            )
    return table


def _rates(one: CategoryCell) -> list[str]:
    """Counts of a category with few prompts, and no rate."""
    if one.prompts < FEW:
        counts = (f"{one.accepted} of {one.drafted}", f"{one.emitted} in {one.verifications}")
        return [counts[0], "", counts[1], "", ""]
    return [
        number(one.draft_acceptance, ".1%"),
        interval(one.draft_acceptance_low, one.draft_acceptance_high, ".1%", " - "),
        number(one.tau),
        number(one.speedup, unit="x"),
        interval(one.speedup_low, one.speedup_high, between=" - "),
    ]


def _comparisons(summary: Summary) -> Table:
    table = _blank()
    for name in ("draft", "against"):
        table.add_column(name)
    for name in ("T", "gamma"):
        table.add_column(name, justify="right")
    table.add_column("of")
    for name in ("before", "after", "difference", f"{summary.confidence:.0%}", "relative"):
        table.add_column(name, justify="right")
    table.add_column("")
    for one in summary.comparisons:
        form = {"tau": ".2f", "speed": ".0f"}.get(one.quantity, ".3f")
        table.add_row(
            one.draft,
            one.against,
            f"{one.temperature:g}",
            "" if one.gamma is None else str(one.gamma),
            {"speed": "tokens/s"}.get(one.quantity, one.quantity),
            number(one.against_value, form),
            number(one.value, form),
            number(one.difference, f"+{form}"),
            interval(one.low, one.high, f"+{form}", " ... "),
            number(one.relative, "+.1%"),
            "" if one.verdict == "not tested" else one.verdict,
            style="" if one.verdict in ("higher", "lower") else "dim",
        )
    return table

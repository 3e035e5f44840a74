"""Decoded texts on the report's page: quality, greedy texts that part, an example."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from distillspec.measure.summary.records import Example, Summary
from distillspec.report.figures.theme import degrees, ordered
from distillspec.report.html_table import table
from distillspec.text.numbers import number


def quality(summary: Summary) -> str:
    rows = [
        (
            "",
            [
                one.completions_of,
                one.metric,
                degrees(one.temperature),
                str(one.completions),
                ", ".join(f"{name} {number(x, '.3g')}" for name, x in one.scores.items())
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
    return note + table(columns, rows, words=2)


def divergences(summary: Summary) -> str:
    rows = [
        (
            "",
            [
                one.prompt_key,
                one.draft,
                one.method,
                str(one.gamma),
                str(one.position),
                number(one.gap, ".3g"),
                "yes" if one.are_top_two else "NO",
            ],
        )
        for one in summary.greedy_divergences
    ]
    note = (
        "<p>At temperature 0 both decoders must say the same. In low precision a forward over one "
        "token and one over several differ in the last bits, and where the target's two highest "
        "logits are nearly equal the argmax can flip. That explains a difference only if the two "
        "tokens are the target's top two.</p>"
    )
    columns = ("prompt", "draft", "method", "gamma", "token", "gap of the logits", "top two")
    return note + table(columns, rows, words=3)


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
        f'<div class="example"><div class="label">{escape(one.draft)}, {escape(one.method)}: '
        f"{len(one.pieces)} tokens in {one.verifications} target forwards, tau {number(one.tau)}"
        f"</div><pre>{pieces}</pre></div>"
    )


def _visible(text: str) -> str:
    """Escaped; a line break keeps a mark, so that the token that made it can be seen."""
    return escape(text).replace("\n", '<span class="break">↵</span>\n')

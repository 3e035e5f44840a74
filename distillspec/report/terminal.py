"""The summary in the terminal: tables, findings, and last what it comes to in four answers."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from distillspec.measure.summary.records import Summary
from distillspec.report import columns
from distillspec.report.figures.theme import degrees
from distillspec.report.grid import TERMINAL, Grid
from distillspec.report.tiles import tiles
from distillspec.text.numbers import number

_FINDINGS = 5
_STYLES = {
    "best": "bold",
    "fastest": "bold",
    "slow": "red",
    "slower": "dim",
    "null": "dim",
    "oracle": "dim italic",
}


def summary_table(summary: Summary) -> RenderableType:
    """One row per cell, grouped by temperature; the best gamma of every draft is bold."""
    parts: list[RenderableType] = []
    for temperature in summary.temperatures():
        cells = columns.terminal_cells(summary, temperature)
        parts += [_heading(summary, temperature), _table(cells, is_grouped=True), Text("")]
    categories = summary.best_by_category()
    for title, records, grid in (
        ("Paired differences", summary.comparisons, columns.comparisons),
        ("Methods by speed", summary.ranking, columns.ranking),
        ("By category, at the best gamma", categories, columns.categories),
    ):
        if records:
            parts += [Text(title, style="bold"), _table(grid(summary, TERMINAL)), Text("")]
    parts += [*_findings(summary), Text("")]
    # The last lines are those that a terminal shows.
    for tile in tiles(summary):
        parts.append(Text(f"{tile.number}  {tile.label}", style="bold"))
        parts += [_indented(f"{question} {answer}") for question, answer in tile.answers]
    return Group(*parts)


def _findings(summary: Summary) -> list[RenderableType]:
    """All cautions, and the first of the other findings."""
    others = [note for note in summary.notes if note not in summary.cautions]
    shown = [*summary.cautions, *others[:_FINDINGS]]
    lines: list[RenderableType] = [Text("Findings", style="bold")]
    lines += [_indented(f"- {note}") for note in shown]
    if len(others) > _FINDINGS:
        lines.append(_indented(f"- {len(others) - _FINDINGS} more in report.html"))
    return lines


def _indented(text: str) -> Padding:
    return Padding(Text(text), (0, 0, 0, 1))


def _heading(summary: Summary, temperature: float) -> Text:
    plain = next(line for line in summary.baseline if line.temperature == temperature)
    heading = Text.assemble(
        (degrees(temperature), "bold"),
        f"   autoregressive {number(plain.tokens_per_second.value, '.0f')} tokens/s"
        f"   {plain.prompts} prompts x {summary.max_new_tokens} tokens"
        f"   alpha and expected tau on {summary.texts}",
    )
    if plain.repeated_ngram_share is not None:
        heading.append(f"   repeated 4-grams {number(plain.repeated_ngram_share, '.0%')}")
    return heading


def _table(grid: Grid, *, is_grouped: bool = False) -> Table:
    """is_grouped: an empty line after the rows of one draft, which the first column names."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", collapse_padding=True)
    for head in grid.heads:
        table.add_column(head.title, justify="right" if head.is_number else "left")
    following = [*(line.cells[0] for line in grid.lines[1:]), None]
    for line, next_name in zip(grid.lines, following, strict=True):
        table.add_row(
            *line.cells,
            style=" ".join(_STYLES.get(word, "") for word in line.emphasis.split()),
            end_section=is_grouped and line.cells[0] != next_name,
        )
    return table

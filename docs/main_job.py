"""The result of the README's first command: a table and two sentences, from eval/results/."""

from __future__ import annotations

from collections.abc import Mapping

from distillspec.export.markdown import words
from distillspec.measure.summary.cells import Cell
from distillspec.measure.summary.records import DraftComparison, Summary
from distillspec.text.numbers import bracketed, number, with_interval
from docs.kept import Kept

NAME = "nano-python"
_ORDER = ("undistilled", "control", "distilled")
FIRST, LAST = "<!-- made by docs/generate.py -->\n", "<!-- end -->\n"


def with_result(readme: str, results: Mapping[str, Kept]) -> str:
    """The README with the current result between its two marks."""
    before, _, rest = readme.partition(FIRST)
    after = rest.partition(LAST)[2]
    return f"{before}{FIRST}{_block(results[NAME])}{LAST}{after}"


def _block(kept: Kept) -> str:
    summary = kept.content
    assert isinstance(summary, Summary), kept.name
    tested = [
        one
        for one in summary.comparisons
        if one.quantity == "speed" and one.verdict != "not tested" and one.draft != one.against
    ]
    gammas = {one.temperature: one.gamma for one in tested}
    shown = [c for c in summary.of_shown_method() if gammas.get(c.temperature) == c.gamma]
    shown.sort(key=lambda cell: (cell.temperature, _ORDER.index(cell.draft)))
    machine = kept.environment["machine"]
    place = f"{machine['cores']} cores of an {words(machine['cpu'])}, without a GPU"
    lines = [
        "\n| T | draft | gamma | alpha | expected tau | predicted | measured speed-up | tokens/s |",
        "|---|---|---|---|---|---|---|---|",
        *map(_row, shown),
        "",
        *map(_sentence, sorted(tested, key=lambda one: one.temperature)),
        f"- Measured on {kept.date} on {place}.",
        "",
    ]
    return "\n".join(lines)


def _row(cell: Cell) -> str:
    return (
        f"| {cell.temperature:g} | {cell.draft} | {cell.gamma} | {number(cell.alpha.value, '.3f')} "
        f"| {number(cell.expected_tau.value)} | {number(cell.predicted_speedup, unit='x')} "
        f"| {with_interval(*cell.speedup)} | {number(cell.tokens_per_second, '.0f')} |"
    )


def _sentence(one: DraftComparison) -> str:
    value, low, high = (100.0 * bound for bound in one.relative)
    share = f"{number(value, '.1f')} % {bracketed(low, high, '.1f')}"
    pair = f"T = {one.temperature:g}, tokens/s of {one.draft} against {one.against}"
    return f"- {pair}: {one.verdict} ({share})."

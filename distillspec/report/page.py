"""report.html: one self-contained page of an evaluation, from the files in its folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from distillspec.measure.summary.breakdown import FEW
from distillspec.measure.summary.file import read_summary
from distillspec.measure.summary.records import Example, Summary
from distillspec.measure.timed.audit import AUDIT, read
from distillspec.report import columns
from distillspec.report.figures.save import save_figures
from distillspec.report.figures.theme import ordered
from distillspec.report.grid import PAGE
from distillspec.report.payback import Cost, payback
from distillspec.report.tiles import facts, tiles, title
from distillspec.runtime import atomic
from distillspec.text.foreign import visible
from distillspec.text.numbers import number

REPORT = "report.html"
_FIRST_FINDINGS = 5
_FATES = ("accepted", "corrected", "bonus")


def write_report(
    folder: Path,
    metrics_csv: Mapping[str, Path],
    cost: Cost | None = None,
    price_per_hour: float | None = None,
) -> Path:
    """Write report.html and figures/ next to the summary.json in `folder`.

    Args:
        folder: An evaluation's folder. Its audit.jsonl, if there is one, is drawn too.
        metrics_csv: The training log of each run, by the name of its draft. Missing files are
            skipped.
        cost: Of the distilled draft, if it is known.
        price_per_hour: Of a GPU, or of a machine without GPUs.

    Returns:
        The path of the page.
    """
    summary = read_summary(folder / "summary.json")
    figures = save_figures(summary, metrics_csv, folder / "figures", read(folder / AUDIT))
    lines = [] if cost is None else payback(summary, cost, price_per_hour)
    page = folder / REPORT
    atomic.write_text(page, visible(render(summary, figures, lines)))
    return page


def render(
    summary: Summary, figures: Mapping[str, tuple[Path, Path]], paid_back: Sequence[str] = ()
) -> str:
    """The page. It loads no script, font, image or style from elsewhere.

    Args:
        summary: What was measured.
        figures: PNG files for a light and a dark page, by the figure's name.
        paid_back: Sentences on cost and pay-back.
    """
    environment = Environment(
        loader=PackageLoader("distillspec.report"),
        autoescape=True,  # names, notes and texts are foreign
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"number": number, "marked": _marked}
    return environment.get_template("report.html.j2").render(
        title=title(summary),
        first=_FIRST_FINDINGS,
        summary=summary,
        facts=facts(summary),
        tiles=tiles(summary),
        findings=[note for note in summary.notes if note not in summary.cautions],
        paid_back=paid_back,
        columns=columns,
        PAGE=PAGE,
        few=FEW,
        fates=_FATES,
        figures={
            name: {"light": _encoded(light), "dark": _encoded(dark)}
            for name, (light, dark) in figures.items()
        },
        examples=_by_temperature(summary.examples),
        environment=json.dumps(summary.environment, indent=2, ensure_ascii=False),
    )


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _by_temperature(examples: Sequence[Example]) -> list[list[Example]]:
    """The examples of each temperature, with the drafts in the order of the figures."""
    names = ordered([example.draft for example in examples])
    return [
        sorted(
            (example for example in examples if example.temperature == temperature),
            key=lambda example: names.index(example.draft),
        )
        for temperature in dict.fromkeys(example.temperature for example in examples)
    ]


def _marked(text: str) -> Markup:
    """Escaped text whose line breaks have a mark, so that the token with the break is visible."""
    return Markup('<span class="break">↵</span>\n').join(escape(part) for part in text.split("\n"))

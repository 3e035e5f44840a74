"""report.html: one self-contained page of an evaluation, from the files in its folder."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from distillspec.measure.summary.breakdown import FEW
from distillspec.measure.summary.file import read_summary
from distillspec.measure.summary.records import Summary
from distillspec.measure.timed.audit import AUDIT, read
from distillspec.report import cell_sections, frame_sections, method_sections, text_sections
from distillspec.report.figures.save import save_figures
from distillspec.report.figures.theme import ordered
from distillspec.report.style import STYLE
from distillspec.runtime import atomic
from distillspec.text.foreign import visible

REPORT = "report.html"

_CAPTIONS = {
    "speedup": (
        "Measured speed-up over autoregressive decoding",
        "Wall-clock ratio, block size across, temperature down. The best gamma of each row is "
        "bold; below 1 speculation costs time. Of several methods the maps show the one that they "
        "name; all stand under Methods by speed and All cells.",
    ),
    "tau": (
        "Tokens per target forward, and acceptance",
        "tau with its interval over documents, of the method that a panel names if there are "
        "several; and alpha on the target's own text.",
    ),
    "differences": (
        "What distillation changed",
        "Relative difference in tau with its interval, paired over the same documents: expected on "
        "texts of the target, and as decoded (with the chance that decoding adds). In colour: the "
        "comparisons at the recommended gamma in which a difference is shown, all of them tested "
        "together.",
    ),
    "positions": (
        "Acceptance by position in the block",
        "Share of drafts whose token at this position was kept, at the largest gamma.",
    ),
    "contexts": (
        "Acceptance by position in the context",
        "Share of the drafted tokens that were kept, by the tokens (prompt and output) before the "
        "draft, at the largest gamma. Long contexts are late rounds and long prompts: where these "
        f"differ in kind, so do the bins. Bins with fewer than {FEW} prompts are left out.",
    ),
    "prediction": (
        "Does the cost model hold?",
        "Predicted from tau and isolated step times, against what the clock says. On the dashed "
        "line both agree.",
    ),
    "regret": (
        "Regret",
        "What methods that choose needed beyond the best of their arms, known in hindsight, after "
        "each prompt; dotted, what the mean arm needed. A line that flattens has learnt; one that "
        "falls gains by changing arms.",
    ),
    "arms": (
        "Who decoded, over time",
        "Share of the rounds that each arm decoded, in the order in which they were decoded.",
    ),
    "entropies": (
        "How unsure the draft was",
        "Entropy of the draft's untempered law where tokens were drafted, one sequence a round: of "
        "those that were kept, and of the first of each round that was not.",
    ),
    "training": (
        "Training",
        "Loss and acceptance over the steps; markers are probes on held-out prompts.",
    ),
}


def write_report(folder: Path, metrics_csv: Mapping[str, Path]) -> Path:
    """Write report.html and figures/ beside the summary.json in `folder`; return the page's path.

    What the suite audited is drawn from the audit.jsonl there.
    metrics_csv: a training log per run, named like the drafts; missing files are passed over.
    """
    summary = read_summary(folder / "summary.json")
    figures = save_figures(summary, metrics_csv, folder / "figures", read(folder / AUDIT))
    page = folder / REPORT
    atomic.write_text(page, visible(render(summary, figures)))
    return page


def render(summary: Summary, figures: Mapping[str, tuple[Path, Path]]) -> str:
    """The page: no script, no font, image or style from anywhere else."""
    names = ordered(summary.drafts())
    title = f"Speculative decoding: {summary.suite or 'evaluation'}"
    body = [
        frame_sections.head(summary, title),
        frame_sections.tiles(summary),
        _section("Findings", _list(summary.notes)),
        *(_figure(name, figures[name]) for name in ("speedup", "tau") if name in figures),
        _section(
            "Drafts compared, pair by pair",
            cell_sections.comparisons(summary),
            wide=True,
            shown=summary.comparisons,
        ),
        _section(
            "Methods by speed",
            method_sections.ranking(summary.ranking, summary.oracles),
            wide=True,
            shown=summary.ranking,
        ),
        _section(
            "Choosers against their arms",
            method_sections.regrets(summary),
            wide=True,
            shown=summary.regrets,
        ),
        *(
            _figure(name, figures[name])
            for name in ("regret", "arms", "entropies")
            if name in figures
        ),
        *(_figure(name, figures[name]) for name in ("differences", "positions") if name in figures),
        _section(
            "By category",
            cell_sections.categories(summary),
            wide=True,
            shown=summary.best_by_category(),
        ),
        *(_figure(name, figures[name]) for name in ("contexts",) if name in figures),
        _section(
            "Which gamma",
            cell_sections.recommendations(summary.recommendation),
            shown=summary.recommendation,
        ),
        _section(
            "What it looks like", text_sections.examples(summary.examples), shown=summary.examples
        ),
        *(_figure(name, figures[name]) for name in ("prediction", "training") if name in figures),
        _section("All cells", cell_sections.cells(summary, names), wide=True),
        _section("Autoregressive baseline", cell_sections.baseline(summary), wide=True),
        _section("Task quality", text_sections.quality(summary), shown=summary.quality),
        _section(
            "Where greedy texts part",
            text_sections.divergences(summary),
            shown=summary.greedy_divergences,
        ),
        _section("Definitions", frame_sections.definitions(summary.definitions)),
        _section("Environment", frame_sections.environment(summary.environment)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, body: str, *, wide: bool = False, shown: object = True) -> str:
    if not shown:
        return ""
    inner = f'<div class="scroll">{body}</div>' if wide else body
    return f"<section><h2>{escape(title)}</h2>{inner}</section>"


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>"


def _figure(name: str, paths: tuple[Path, Path]) -> str:
    title, caption = _CAPTIONS[name]
    light, dark = (base64.b64encode(path.read_bytes()).decode("ascii") for path in paths)
    return (
        f"<section><h2>{escape(title)}</h2><figure><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
        f'<img alt="{escape(title)}" src="data:image/png;base64,{light}"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure></section>"
    )

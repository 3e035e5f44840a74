"""The page of results: published claims against our figures, then the tables of every file.

No figure is typed by hand: all are read from eval/results/. `published.py` has the claims.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Scripts of eval/bench import each other by their bare names.
sys.path.insert(0, str(Path(__file__).parents[1] / "eval" / "bench"))

import result_file

from distillspec.export.markdown import table, words
from distillspec.measure.summary.records import Summary
from distillspec.measure.summary.variants import markdown
from distillspec.measure.summary.variants_file import ComparisonRound
from distillspec.report import columns
from distillspec.report.grid import TERMINAL
from distillspec.text.numbers import NONE
from docs import across
from docs.kept import BenchTables, Kept, typed_command
from docs.published import CLAIMS, Claim

HEAD = """# Results

This page has what was measured, and what was published about the same methods. Use it to see
what to expect, and to compare your own runs.

- Every figure comes from a file in `eval/results/`. The file has its command, commit, versions
  and machine.
- Brackets are intervals over source documents.
- The nano pair is small and briefly trained. A figure of it checks the method and the
  measurement. It is no repetition of a published setting.
- Speed depends on the machine. Each section names its machine and what else ran on it.
- [Run benchmarks](../how-to/run-benchmarks.md#keep-a-result) shows how to add or renew a figure.

## Published claims and our figures

"""
DRIFT = """## Gain against drift

How far the target has drifted away from its draft, and what distilling then gains. All have the
same draft, and 75 seconds of training. A verdict is tested at one gamma for each temperature: the
distilled draft's fastest.

"""
PREDICTIONS = """## Predictions against the clock

Measured over predicted speed-up, over all drafts and temperatures of an evaluation. 1 is a perfect
prediction.

"""
MISSING = "not measured here"
FOOT = """## Earlier measurements

[Earlier measurements](earlier-measurements.md) has tables of earlier versions, whose files no
longer exist. They were typed by hand. Some settings were chosen by them.

Next step: [How speed is measured](how-speed-is-measured.md).
"""


def page(results: Mapping[str, Kept]) -> str:
    """The text of docs/explanation/results.md."""
    parts = [
        HEAD + claims_table(results),
        f"{DRIFT}{across.drift_table(results)}",
        f"{PREDICTIONS}{across.predictions_table(results)}",
    ]
    parts += [
        f"## {kept.name}\n\n{_provenance(kept)}\n{_tables(kept)}" for kept in results.values()
    ]
    return "\n".join([*parts, FOOT])


def claims_table(results: Mapping[str, Kept]) -> str:
    head = ("published claim", "setting", "our setting", "our figure", "command")
    lines = [head, ("---",) * len(head), *(_claim_row(claim, results) for claim in CLAIMS)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _claim_row(claim: Claim, results: Mapping[str, Kept]) -> tuple[str, ...]:
    published = f"{claim.system}: {claim.published}"
    kept = results.get(claim.result)
    figure = None if kept is None else claim.figure(kept)
    if kept is None or figure is None:
        return published, claim.setting, NONE, MISSING, f"`{claim.command}`"
    link = f"[{figure.text}](#{kept.name})"
    return published, claim.setting, figure.setting, link, f"`{kept.command}`"


# --- the details ---------------------------------------------------------------------------------


def _provenance(kept: Kept) -> str:
    """How the file came about, as a list."""
    environment = kept.environment
    git, machine = environment["git"], environment["machine"]
    commit = str(git["commit"] or "unknown")[:10] + (" with changes" if git["dirty"] else "")
    devices = ", ".join(machine["gpus"]) or "no GPU"
    versions = environment["versions"]
    lines = [f"command: `{kept.command}`"]
    lines += [f"run: `{typed_command(one)}`" for one in environment.get("run_commands", ())]
    lines += [
        f"date: {kept.date}; commit {commit}; torch {versions['torch']}, "
        f"transformers {versions['transformers']}",
        f"machine: {words(machine['cpu'])} ({_flags(machine)}), {devices}; cores: "
        f"{machine['cores']}, threads: {environment['threads']}",
    ]
    if "conditions" in environment:
        lines.append(f"conditions: {words(environment['conditions'])}")
    return "".join(f"- {line}\n" for line in lines)


def _wrapped(text: str, indent: str = "") -> str:
    """The text in lines of at most 118 characters; all but the first are indented."""
    lines = textwrap.wrap(
        text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines) + "\n"


def _flags(machine: Mapping[str, Any]) -> str:
    return ", ".join(machine["cpu_flags"]) or "no fast products known"


def _tables(kept: Kept) -> str:
    content = kept.content
    if isinstance(content, Summary):
        return _evaluation(content)
    if isinstance(content, ComparisonRound):
        return _comparison(content)
    return _bench(content)


def _evaluation(summary: Summary) -> str:
    parts = [
        f"{summary.prompts} prompts of {summary.documents} documents, {summary.texts} texts of "
        f"{summary.text_documents} documents, {summary.max_new_tokens} new tokens each.\n",
        *(
            f"T = {temperature:g}:\n\n{table(columns.terminal_cells(summary, temperature))}\n"
            for temperature in summary.temperatures()
        ),
        f"The target alone:\n\n{table(columns.baseline(summary))}\n",
    ]
    if summary.comparisons:
        grid = columns.comparisons(summary, TERMINAL)
        parts.append(f"Drafts against each other:\n\n{table(grid)}\n")
    if len(summary.methods()) > 1:
        grid = columns.ranking(summary, TERMINAL)
        parts.append(f"Methods against the fastest:\n\n{table(grid)}\n")
    if summary.regrets:
        grid = columns.regrets(summary)
        parts.append(f"Methods that choose, against their arms:\n\n{table(grid)}\n")
    notes = "".join(_wrapped(f"- {words(note)}", "  ") for note in summary.notes)
    return "\n".join([*parts, f"Findings that the program wrote:\n\n{notes}"])


def _comparison(compared: ComparisonRound) -> str:
    return "\n".join(
        f"{one.kind} prompts, {one.texts} texts of {one.documents} documents, "
        f"T = {compared.temperature:g}, gamma {compared.gamma}; {compared.minutes:g} minutes each, "
        f"{len(compared.seeds)} seeds:\n\n"
        f"{markdown(one.standings, compared.against, compared.confidence)}"
        for one in compared.tables
    )


def _bench(bench: BenchTables) -> str:
    settings = {key: value for key, value in bench.settings.items() if value is not None}
    shown = ", ".join(f"{key} {words(str(value))}" for key, value in settings.items())
    parts = [_wrapped(f"{bench.documents} documents. Settings: {shown}.")]
    parts += [f"{title}:\n\n{result_file.markdown(rows)}" for title, rows in bench.tables.items()]
    return "\n".join(parts)

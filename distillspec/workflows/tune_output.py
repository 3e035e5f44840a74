"""What `tune` leaves: a table on the terminal, and a suite with the winner and its evidence."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.table import Table

from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Interval
from distillspec.measure.timed.bench import BenchColumn
from distillspec.measure.timed.race import FIRST_LOOK, RaceOutcome, RaceStanding
from distillspec.models.loading.precision import describe
from distillspec.recipe import yaml_text
from distillspec.recipe.suite import Suite
from distillspec.runtime import atomic, provenance
from distillspec.runtime.plain_files import check_regular
from distillspec.text.numbers import interval, known, number

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DRAFT = "distilled"  # the name of the served draft in suites
_TOO_FEW = "too few prompts"
_WIDEST = 10.0  # width of an interval that is shown, in multiples of the estimate
NAME = "tune"  # of the suite that is written
_WRITTEN_BY = "# Found by `distillspec tune`"
_WRITTEN_BEFORE = "# Found by `distillspec auto`"  # the former name of the verb


def standings_table(outcome: RaceOutcome, columns: Sequence[BenchColumn]) -> Table:
    """All candidates, the fastest first."""
    table = Table(
        "method", title=f"autoregressive: {known(outcome.plain.value, '.0f', ' tokens/s')}"
    )
    for name in ("gamma", "prompts", "tokens/s", "95%", "speed-up", "95%", "of the fastest"):
        table.add_column(name, justify="right")
    table.add_column("")
    for standing in outcome.standings:
        column = columns[standing.way]
        table.add_row(
            column.method.name,
            str(column.gamma),
            str(standing.prompts),
            number(standing.tokens_per_second.value, ".0f"),
            _range(standing.tokens_per_second, ".0f"),
            number(standing.speedup.value, unit="x"),
            _range(standing.speedup, ".2f"),
            number(1.0 + standing.relative.value, ".0%"),
            _verdict(standing, outcome),
        )
    return table


def _verdict(standing: RaceStanding, outcome: RaceOutcome) -> str:
    if standing is outcome.standings[0]:
        return "fastest"
    if standing.dropped:
        return "dropped"
    return "within noise of it" if standing.is_near else "slower"


def evidence(
    outcome: RaceOutcome,
    columns: Sequence[BenchColumn],
    suite: Suite,
    target: PreTrainedModel,
    prompts: str,
) -> str:
    """The comment above the suite: what was measured, on which prompts, and how certain it is.

    Args:
        outcome: Of the race.
        columns: The candidates.
        suite: What was decoded.
        target: Names device and dtype.
        prompts: The source of the prompts, in words.
    """
    best = outcome.standings[0]
    near = [str(columns[standing.way]) for standing in outcome.standings[1:] if standing.is_near]
    now = provenance.gather()
    names = [name.rpartition("/")[2] for name in near]
    lines = [
        f"{_WRITTEN_BY} on {now.started}: {shlex.join(now.command)}",
        f"# {describe(target.device)}; {torch.get_num_threads()} threads, "
        f"{suite.runner.kind} runner, {str(target.dtype).removeprefix('torch.')}",
        f"# {best.prompts} prompts of {prompts} x {suite.max_new_tokens} tokens "
        f"({outcome.documents} documents), T = {suite.temperatures[0]:g}; {len(columns)} "
        f"candidates; {outcome.why_it_ended}",
        f"# {known(best.tokens_per_second.value, '.0f', ' tokens/s')} "
        f"[{_range(best.tokens_per_second, '.0f')}], {known(best.speedup.value, unit='x')} "
        f"[{_range(best.speedup, '.2f')}] the "
        f"{known(outcome.plain.value, '.0f')} of autoregressive decoding",
        f"# of {best.documents} documents"
        + (
            " that it was not picked by"
            if outcome.fresh
            else f"; intervals allow for its having been picked out of {len(columns)}"
        ),
        f"# within noise of it: {', '.join(names) or 'nothing'}",
    ]
    if outcome.documents < FIRST_LOOK:
        lines.append("# TOO FEW DOCUMENTS to tell the candidates apart")
    if not gains(best):
        lines.append(f"# NO GAIN over autoregressive decoding is shown: {why_no_gain(best)}")
    # A line break in foreign text would end the comment.
    return "\n".join(line.replace("\n", " ") for line in lines) + "\n"


def gains(best: RaceStanding) -> bool:
    """Whether the fastest candidate is certainly faster than autoregressive decoding."""
    return best.gain == "higher"


def why_no_gain(best: RaceStanding) -> str:
    """Why no gain is shown."""
    if best.gain == "too few documents":
        return f"{best.documents} documents are too few"
    return "its interval reaches 1"


def entry(winner: BenchColumn, suite: Suite) -> str:
    """The suite that decodes with the winner only, as YAML."""
    method = winner.method.model_dump(mode="json", exclude_defaults=True)
    return yaml_text.write(
        {
            "name": NAME,
            "seed": suite.seed,
            "drafts": [DRAFT],
            "methods": [{"name": winner.method.name, **method, "gammas": [winner.gamma]}],
            "temperatures": list(suite.temperatures),
            "max_new_tokens": suite.max_new_tokens,
            "runner": {"kind": suite.runner.kind},
        }
    )


def check_output(output: Path) -> None:
    """Check that the suite can be written, and make its folder.

    Raises:
        DistillSpecError: The file exists, and `tune` has not written it.
    """
    fix = "give another --output, or move that file"
    check_regular(output, "the suite to write", fix)
    if not output.exists():
        atomic.make_folder(output.parent)
        return
    try:
        is_ours = output.read_text(encoding="utf-8").startswith((_WRITTEN_BY, _WRITTEN_BEFORE))
    except (OSError, UnicodeDecodeError):
        is_ours = False
    if not is_ours:
        raise DistillSpecError(
            "this file exists, and `distillspec tune` has not written it",
            where=str(output),
            fix=fix,
        )


def _range(estimate: Interval, form: str) -> str:
    # Of two or three documents, the bounds may have dozens of digits and say nothing.
    if estimate.high - estimate.low > _WIDEST * abs(estimate.value):
        return _TOO_FEW
    return interval(estimate.low, estimate.high, form, " - ", _TOO_FEW)

"""The verbs `evaluate` and `report`: decode with each draft of a run, and show the results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distillspec.assembly.pair import dtype_of
from distillspec.assembly.text import suite_prompts
from distillspec.errors import DistillSpecError
from distillspec.measure.evaluation import SUMMARY
from distillspec.measure.evaluation import evaluate as measure_cells
from distillspec.measure.summary.file import read_summary
from distillspec.models.loading.precision import cast_parameters
from distillspec.models.vocabulary.trimmed_head import settle_head
from distillspec.recipe.loading import load_suite
from distillspec.recipe.suite import Suite
from distillspec.report.page import write_report
from distillspec.text.command import command
from distillspec.training.resume import BEST
from distillspec.workflows.export import update_exported
from distillspec.workflows.run import Run, check_not_lost, console, show_summary, started
from distillspec.workflows.run_folder import RunFolder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def evaluate(folder: Path, suite: str, changes: Sequence[str] = ()) -> int:
    """Measure the drafts of a run; an interrupted evaluation continues where it stopped.

    Args:
        folder: Of the run.
        suite: A suite file.
        changes: `section.key=value` overrides of the suite.
    """
    with started(RunFolder(folder).recipe(), folder) as run:
        try:
            evaluate_run(run, suite, changes)
        except KeyboardInterrupt as interrupt:
            resumed = command(
                "evaluate", folder, "--suite", suite, *(f"suite.{c}" for c in changes)
            )
            raise type(interrupt)(f"resume with: {resumed}") from None
        run.close()
    return 0


def report(folder: Path, price_per_hour: float | None = None) -> int:
    """Write the report of each evaluation in a run folder again from its summary.

    Args:
        folder: Of the run.
        price_per_hour: Of a GPU, or of a machine without GPUs; for the cost of distilling.
    """
    summaries = sorted((folder / "evaluation").glob(f"[!.]*/{SUMMARY}"))
    if not summaries:
        raise DistillSpecError(
            "this run has no evaluation yet",
            where=str(folder / "evaluation"),
            fix=f"distillspec evaluate {folder}",
        )
    for path in summaries:
        run = RunFolder(folder)
        page = write_report(path.parent, run.metrics, run.cost, price_per_hour)
        show_summary(read_summary(path), page)
    return 0


def evaluate_run(run: Run, suite_path: str, changes: Sequence[str] = ()) -> None:
    """Decode with each draft; write rows, summary, report and card; print the table.

    Args:
        run: At work.
        suite_path: A suite file, or the name of a built-in suite.
        changes: `key=value` overrides of the suite.
    """
    # 1. The suite, the models and the prompts.
    pair = run.pair
    suite = load_suite(suite_path, changes).scored_on(run.recipe.data.held_out_source)
    # Training chooses the trimmed head, and without it no draft can be built.
    if run.recipe.pair.draft_head is not None and pair.kept is None:
        raise run.nothing_trained(run.folder.path)
    dtype = dtype_of(suite.runner.dtype, pair.device)
    cast_parameters(pair.target.model, dtype)
    drafts = _drafts(run, dtype)
    held_out, notes = run.prompts.held_out, list[str]()
    if suite.prompts.named:
        held_out, notes = suite_prompts(pair, suite, list(drafts.values()))
    run.say(
        f"measuring {', '.join(measured(suite, drafts))}: "
        f"{min(suite.prompts.count, len(held_out))} prompts, methods "
        f"{', '.join(method.name for method in suite.methods)}, "
        f"temperature {', '.join(f'{temperature:g}' for temperature in suite.temperatures)}"
    )
    # 2. Measure, or go on with an interrupted measurement.
    folder = run.folder.evaluation(suite.name)
    with console.status("") as status:
        summary = measure_cells(
            suite,
            target=pair.target.model,
            drafts=drafts,
            tokenizer=pair.tokenizer,
            prompts=held_out,
            folder=folder,
            device=pair.device,
            vocab_size=pair.vocab_size,
            ends=pair.eos_token_ids,
            notes=notes,
            progress=lambda done, total, doing: status.update(
                doing, done=done if total else None, total=total or None
            ),
        )
    # 3. The report, and the measured gamma and card for the exported draft.
    show_summary(summary, write_report(folder, run.folder.metrics, run.folder.cost))
    if run.folder.draft.exists():
        update_exported(run)


def measured(suite: Suite, drafts: Iterable[str]) -> list[str]:
    """The drafts that a method of the suite decodes with."""
    return [name for name in drafts if any(suite.measures(name, way) for way in suite.methods)]


def _drafts(run: Run, dtype: torch.dtype) -> dict[str, PreTrainedModel]:
    """The undistilled draft and the trained drafts, by name."""
    drafts = {"undistilled": run.pair.draft(dtype)}
    for name, folder in (("distilled", run.folder.path), ("control", run.folder.control)):
        # A draft that was never trained is left out; lost weights are an error.
        if not (folder / BEST).exists():
            check_not_lost(folder, name, run.folder)
            continue
        draft = run.trained_draft(folder, name)
        draft.name_or_path = str(folder / BEST)  # for the summary
        cast_parameters(draft, dtype)
        settle_head(draft)
        drafts[name] = draft
    return drafts

"""The verbs on a recipe or a run folder, each as its stages in their order."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from distillspec.assembly import training
from distillspec.assembly.endpoint_data import target_text
from distillspec.assembly.pair import load_pair, prepare_process
from distillspec.assembly.target_data import cached_target, target_responses
from distillspec.errors import DistillSpecError
from distillspec.measure.evaluation import SUMMARY
from distillspec.measure.summary.file import read_summary
from distillspec.recipe.schema import Recipe
from distillspec.report.page import write_report
from distillspec.runtime.processes import join, leave
from distillspec.runtime.terminal import Terminal
from distillspec.workflows.job import show_summary, started
from distillspec.workflows.run_folder import RunFolder

console = Terminal()


def run(recipe: Recipe, folder: Path | None) -> int:
    """Everything the recipe says, in a new run folder or going on in `folder`.

    Without the target's weights in this process nothing can be evaluated: the end of the run says
    so.
    """
    with started(recipe, folder, "./launch.sh") as job:
        job.train()
        if job.world.rank:
            return 0
        job.export()
        if recipe.pair.endpoint is None and not job.pair.is_split:
            job.evaluate(recipe.evaluate.suite)
        job.close()
        if recipe.export.push is not None:
            job.push(recipe.export.push)
    return 0


def train(recipe: Recipe, folder: Path | None) -> int:
    """Training and export, without evaluation."""
    with started(recipe, folder, "./launch.sh train") as job:
        job.train()
        if job.world.rank:
            return 0
        job.export()
        job.close()
    return 0


def evaluate(folder: Path, suite: str, changes: Sequence[str] = ()) -> int:
    """Measure the drafts of a run; what an interrupted evaluation has measured is kept.

    suite: a file; changes: `section.key=value` overrides of it.
    """
    with started(RunFolder(folder).recipe(), folder) as job:
        try:
            job.evaluate(suite, changes)
        except KeyboardInterrupt as interrupt:
            command = [
                "./launch.sh",
                "evaluate",
                str(folder),
                "--suite",
                suite,
                *(f"suite.{c}" for c in changes),
            ]
            raise type(interrupt)(f"go on with: {shlex.join(command)}") from None
        job.close()
    return 0


def export(folder: Path, repository: str | None) -> int:
    """Write draft/ of a run again, with the numbers that were measured, and upload it if asked."""
    with started(RunFolder(folder).recipe(), folder) as job:
        job.export(repository)
        if repository is not None:
            job.push(repository)
    return 0


def report(folder: Path) -> int:
    """Write the report of each evaluation in a run folder again from its summary."""
    found = sorted((folder / "evaluation").glob(f"[!.]*/{SUMMARY}"))
    if not found:
        raise DistillSpecError(
            "nothing has been measured in this run yet",
            where=str(folder / "evaluation"),
            fix=f"./launch.sh evaluate {folder}",
        )
    for path in found:
        show_summary(read_summary(path), write_report(path.parent, RunFolder(folder).metrics))
    return 0


def generate(recipe: Recipe) -> int:
    """Sample and store the target's responses to the training prompts, and keep its distributions
    where the recipe caches them; resumes.
    """
    world = join()
    if recipe.hardware.shard_target:
        raise DistillSpecError(
            "a target that is split over processes writes no responses",
            where="hardware.shard_target=true",
            fix="let a server write them (pair.endpoint in a recipe of its own), or take text of "
            "the draft or of the data",
        )
    prepare_process(recipe)
    pair = load_pair(recipe)
    sets = training.prompts(pair)
    if not world.rank:
        for note in sets.notes:
            console.print(note, highlight=False, soft_wrap=True)
    wanted = recipe.distill.source.stored
    cached, responses, kept = None, None, list[str]()
    if pair.frozen is None:
        found = target_text(pair, sets, world, console, wanted=True)
        kept.append(f"{len(found.responses or {})} responses stored under {found.folder}")
        kept += found.notes
        kept.append(f"{len(found.held_out)} of them to held-out prompts, for the probe")
    else:
        if "target" in wanted or recipe.distill.cached_logits is None:
            responses = target_responses(pair, sets.training, world)
            kept.append(f"{len(responses.by_key)} responses stored under {responses.folder}")
        known = None if responses is None else responses.by_key
        cached = cached_target(pair, sets.training, known, world)
        if cached is not None:
            kept.append(f"distributions kept under {cached.store.folder}")
    leave(world)
    if world.rank:
        return 0
    for line in kept:
        console.print(line, highlight=False, soft_wrap=True)
    if "target" not in wanted and cached is None:
        console.print("next: set shares under distill.source and start ./launch.sh with the recipe")
    else:
        console.print("next: start ./launch.sh with the recipe")
    return 0

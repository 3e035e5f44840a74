"""A run that a process works on: its folder, pair and prompts, which all verbs share.

All processes train; rank 0 alone does the rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from distillspec.assembly.identity import check_identity, pair_identity, text_identity
from distillspec.assembly.pair import ModelPair, device_of, load_pair, prepare_process
from distillspec.assembly.target import Target, target_of
from distillspec.assembly.text import overlap_notes, pair_prompts, verdict_notes
from distillspec.corpus.sources.prompts import PromptSets
from distillspec.errors import DistillSpecError
from distillspec.measure.summary.records import Summary
from distillspec.models.loading.precision import describe
from distillspec.models.surgery.adapters import merged
from distillspec.recipe.schema import Recipe
from distillspec.report.terminal import summary_table
from distillspec.runtime import provenance
from distillspec.runtime.lock import run_lock
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.processes import from_rank_0, join
from distillspec.runtime.terminal import Terminal
from distillspec.runtime.world import World
from distillspec.text.command import command
from distillspec.training.resume import BEST, LAST, load_best
from distillspec.workflows.run_folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NEXT_SUITES = ("grid", "methods")
_PAGE = 160  # columns of a log or a pipe, which have no width
console = Terminal(width=None if sys.stdout.isatty() else _PAGE)


@dataclass
class Run:
    """A run folder that this process works in.

    Attributes:
        recipe: Of the run.
        folder: Of the run.
        world: The processes of this start.
        log: run.json, on rank 0.
        pair: Target and draft, loaded.
        target: What the run can ask of its target.
        prompts: Training and held-out prompts.
        tokens: Response tokens in the loss, since this start.
    """

    recipe: Recipe
    folder: RunFolder
    world: World
    log: provenance.RunLog | None
    pair: ModelPair
    target: Target
    prompts: PromptSets
    tokens: int = 0

    def record(self, tokens: int | None = None, *, finished: bool = False) -> None:
        """Write the cost so far into run.json."""
        if self.log is not None:
            self.log.record(tokens=self.tokens if tokens is None else tokens, finished=finished)

    def say(self, *lines: str) -> None:
        """Print on rank 0."""
        for line in lines if not self.world.rank else ():
            console.print(line, highlight=False, soft_wrap=True)

    def trained_draft(self, folder: Path, name: str = "distilled") -> PreTrainedModel:
        """A draft with the best weights of the training in `folder`, adapters merged.

        Raises:
            DistillSpecError: The folder has no trained draft, or its weights are missing.
        """
        if not (folder / BEST).exists():
            check_not_lost(folder, name, self.folder)
            raise self.nothing_trained(folder)
        draft = self.pair.trainable_draft()
        load_best(draft, folder / BEST)
        plain = merged(draft)
        plain.eval()
        return plain

    def nothing_trained(self, folder: Path) -> DistillSpecError:
        """The error of a folder without a trained draft."""
        return DistillSpecError(
            "no draft has been trained in this folder yet",
            where=str(folder),
            fix=f"distillspec train {self.folder.path}",
        )

    def close(self) -> None:
        """Print the last lines of a run: its folder, and the next command."""
        self.record(finished=True)
        self.say(f"run folder: {self.folder.path}")
        closing = self.target.closing_lines(self.folder.path, self.folder.draft)
        if closing:
            self.say(*closing)
            return
        for suite in _NEXT_SUITES:
            if not self.folder.evaluation(suite).exists():
                next_step = command("evaluate", self.folder.path, "--suite", suite)
                self.say(f"next:  {next_step}")
                break


@contextmanager
def started(recipe: Recipe, folder: Path | None, resumed_by: str | None = None) -> Iterator[Run]:
    """Join the processes, lock the run folder, load pair and prompts.

    Args:
        recipe: Of the run.
        folder: A run folder to resume; None begins a new one.
        resumed_by: The verb that resumes this run; printed after an interrupt.
    """
    world = join()
    prepare_process(recipe)
    # The run folder is made after pair and data are checked, so that a fault leaves nothing behind.
    pair = load_pair(recipe)
    prompts = pair_prompts(pair)
    begun = None
    if not world.rank:
        begun = RunFolder(folder) if folder is not None else RunFolder.begin(recipe)
    run_folder = from_rank_0(begun, world)  # rank 0 has chosen the run id
    if recipe.pair.draft_head is not None and run_folder.head_file.exists():
        pair = pair.trimmed_to(read_head(run_folder.head_file, pair.vocab_size).tokens)
    run = Run(recipe, run_folder, world, None, pair, target_of(pair, console), prompts)
    if world.rank:
        yield run
        return
    # `holds`: a folder that was deleted meanwhile must not be made again.
    with run_lock(run_folder.path, holds=run_folder.recipe_file.name):
        notes = _check_identity(pair, prompts, run_folder)
        run.log = provenance.RunLog(run_folder.provenance_file, provenance.gather())
        console.print(f"run folder: {run_folder.path}", highlight=False)
        console.print(describe(device_of(recipe.hardware)), highlight=False)
        if busy := _busy_note(device_of(recipe.hardware)):
            console.print(busy, highlight=False, soft_wrap=True)
        of_data = [*overlap_notes(recipe, prompts), *verdict_notes(recipe, prompts)]
        for note in [*notes, *prompts.notes, *of_data]:
            console.print(note, highlight=False)
        console.print(
            f"{len(prompts.training):,} training prompts, {len(prompts.held_out)} held out"
        )
        try:
            yield run
        except KeyboardInterrupt as interrupt:
            # An interrupt with a message already explains how to resume.
            if str(interrupt) or resumed_by is None:
                raise
            path = run_folder.path
            how = f"with: {command(resumed_by, path)}"
            if world.size > 1:  # only its user knows how many processes on which machines
                how = f"with the same command, and {path} in place of the recipe"
            raise type(interrupt)(f"resume {how}") from None


def _busy_note(device: torch.device) -> str | None:
    """A note on a CPU that other programs use, where threads that wait for each other take long."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    if device.type != "cpu" or load < cores or torch.get_num_threads() == 1:
        return None
    return (
        f"this machine is busy (load {load:.1f} on {cores} cores): hardware.threads=1 may be many "
        "times as fast, and measured speed-ups will be uncertain"
    )


def show_summary(summary: Summary, page: Path) -> None:
    """Print the tables of an evaluation and the path of its report."""
    console.print(summary_table(summary))
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


class TrimmedHeadFile(NamedTuple):
    """draft_head.json.

    Attributes:
        tokens: The kept tokens, ascending.
        share: Of the text that the tokens were counted in, in [0, 1].
        mass: The target's mass on the tokens in held-out text, in [0, 1].
    """

    tokens: tuple[int, ...]
    share: float
    mass: float


def read_head(path: Path, vocab_size: int) -> TrimmedHeadFile:
    """Read and check draft_head.json.

    Raises:
        DistillSpecError: The file cannot be read, or it has tokens outside the vocabulary.
    """
    text = BoundedText(path, "the tokens that the draft's head keeps", "start a new run")
    head = read_json(text, TrimmedHeadFile)
    if not head.tokens or not all(0 <= token < vocab_size for token in head.tokens):
        raise text.fault(f"its tokens are not all in a vocabulary of {vocab_size:,}")
    return head


def _check_identity(pair: ModelPair, prompts: PromptSets, folder: RunFolder) -> list[str]:
    """Check that models and data are those that the run was started with; returns notes."""
    path, trained = folder.identity_file, (folder.path / LAST).exists()
    named = pair.recipe.data.source.model_dump()
    source = f"data.source: {named.get('path') or named.get('dataset') or named['kind']}"
    notes = check_identity(path, pair_identity(pair, path), has_trained=trained)
    check_identity(path, text_identity(prompts, source), has_trained=False)
    return notes


def check_not_lost(folder: Path, name: str, run: RunFolder) -> None:
    """Check that the best weights of a trained draft still exist.

    Args:
        folder: Of the training.
        name: Of the draft, as in training.json.
        run: The run that the training belongs to.

    Raises:
        DistillSpecError: The draft has been trained, and its best weights are missing.
    """
    fix = f"restore the file, or resume the training: distillspec train {run.path}"
    is_done = run.training_file.exists() and name in read_json(
        BoundedText(run.training_file, "what training came to", fix), dict[str, Any]
    )
    # No result and no checkpoint: it has not been trained.
    if not is_done and not os.path.lexists(folder / LAST):
        return
    if is_done:
        fix = (
            f"restore the file; or delete {LAST} next to it and train again from the beginning: "
            f"distillspec train {run.path}"
        )
    raise DistillSpecError(
        f"the weights of the best step of the {name} draft are gone"
        if is_done
        else f"there are no best weights of the {name} draft: its training was stopped before it "
        "was measured, or the file is gone",
        where=str(folder / BEST),
        fix=fix,
    )

"""Where a pretraining recipe writes its model, and whether that place may and can be written."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from distillspec.errors import DistillSpecError
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.written_files import PRETRAINED_FILES, check_marked
from distillspec.runtime.atomic import Writes, check_replaceable, followed


def output_folder(recipe: PretrainRecipe) -> Path:
    return Path(os.path.expanduser(recipe.output))


def replaceable(recipe: PretrainRecipe) -> Writes:
    """What may lie in the output folder: what pretraining wrote there, or the model to go on from.

    For `atomic.replacing_folder`.
    """
    output = output_folder(recipe)
    if _is_same(recipe.start_from, output):
        return PRETRAINED_FILES
    return check_marked


def check_output(recipe: PretrainRecipe, runs: Path, where: str) -> None:
    """Refuse, before any training, an output folder that would be refused after it.

    Args:
        recipe: The pretraining recipe.
        runs: The folder of this recipe's run.
        where: The key of the recipe, for errors.

    Raises:
        DistillSpecError: The place cannot be written, overlaps the run folder, is the model whose
            tokenizer is taken, or holds files that pretraining did not write.
    """
    output = output_folder(recipe)
    goal = followed(output)
    # As real paths, so that links and `..` cannot hide an overlap.
    target, run = Path(os.path.realpath(goal)), Path(os.path.realpath(runs))
    if target.is_relative_to(run) or run.is_relative_to(target):
        raise DistillSpecError(
            f"the model cannot be written to '{output}': this recipe's run folder is {runs}",
            where=where,
            fix="name a folder outside of it, which does not contain it either",
        )
    taken = recipe.tokenizer.take_from
    if _is_same(taken, output) and not _is_same(recipe.start_from, output):
        raise DistillSpecError(
            f"the model '{output}' would be replaced, and its tokenizer is taken for the new one",
            where=where,
            fix="name another folder; only the model in start_from may be written over",
        )
    check_replaceable(output, replaceable(recipe))
    # An existing folder is renamed, so its parent must be writable.
    check_writable(goal.parent if goal.exists() else goal, where)


def check_writable(path: Path, where: str) -> None:
    """`path` is a folder that can be written, or can be made one. What is tried is undone."""
    # The nearest existing folder decides.
    nearest = path.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    reason = "is not a folder"
    if nearest.is_dir():
        reason = "is not writable"
        try:
            _try(nearest)
            return
        except OSError as error:
            reason += f" ({error.strerror})"
    raise DistillSpecError(
        f"cannot write to '{path}': {nearest} {reason}",
        where=where,
        fix="choose a folder that you may write to, or change its permissions",
    )


def _try(folder: Path) -> None:
    """OSError if nothing can be written in `folder`; only trying tells, of /proc for example.

    A file without a name leaves nothing where this process is killed; not every system has them.
    """
    unnamed = getattr(os, "O_TMPFILE", None)
    if unnamed is not None:
        try:
            os.close(os.open(folder, unnamed | os.O_WRONLY, 0o600))
            return
        except OSError as error:
            # This file system has no unnamed files: try a named folder.
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
    with tempfile.TemporaryDirectory(prefix=f".try.{os.getpid()}_", suffix=".tmp", dir=folder):
        pass


def _is_same(model: str | None, folder: Path) -> bool:
    """Whether the model folder of a recipe is `folder`, by whatever name."""
    return model is not None and os.path.realpath(os.path.expanduser(model)) == os.path.realpath(
        folder
    )


RUNS = Path("checkpoints/runs")

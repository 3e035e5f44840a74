"""Task quality of completions, through the `evaluate` library and metric modules loaded by path."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import evaluate

from distillspec.errors import DistillSpecError
from distillspec.recipe import builtin

log = logging.getLogger(__name__)


class Completion(NamedTuple):
    """A completion that a metric scores.

    Attributes:
        finished: Whether the text ended with an end-of-text token.
        reference: The data's response, if it has one.
    """

    prompt: str
    text: str
    finished: bool
    reference: str | None


def score(metric: str, completions: Sequence[Completion]) -> dict[str, float]:
    """The scores of a metric by name. Nothing is downloaded.

    A metric receives the columns that its features name: `predictions`, `references`, `prompts`,
    `finished`. A metric with references only receives completions that have one.

    Args:
        metric: Path of the metric, a folder or a .py file.
        completions: What to score.

    Returns:
        Empty if the metric needs references and no completion has one.

    Raises:
        DistillSpecError: The metric cannot be loaded, or names an unknown column.
    """
    # 1. Match the metric's features with the columns.
    module = _load(metric)
    wanted = set(module.features)
    columns: dict[str, list[Any]] = {
        "predictions": [completion.text for completion in completions],
        "prompts": [completion.prompt for completion in completions],
        "finished": [completion.finished for completion in completions],
        "references": [completion.reference for completion in completions],
    }
    unknown = wanted - set(columns)
    if unknown:
        raise DistillSpecError(
            f"the metric needs {', '.join(sorted(unknown))}, which completions do not have",
            where=metric,
            fix=f"use a metric whose features are among {', '.join(sorted(columns))}",
        )
    # 2. If the metric needs references, score only completions that have one.
    scored = [
        i
        for i, completion in enumerate(completions)
        if "references" not in wanted or completion.reference is not None
    ]
    if not scored:
        return {}
    result = module.compute(**{name: [columns[name][i] for i in scored] for name in wanted})
    # A metric may return more than numbers.
    return {name: float(value) for name, value in result.items() if isinstance(value, int | float)}


def name_of(metric: str) -> str:
    """The short name of a metric, from its path."""
    return Path(metric).stem


def _load(metric: str) -> Any:
    path = builtin.find("metric", metric)
    script = path if path.suffix == ".py" else path / f"{path.name}.py"
    if not script.is_file():
        raise DistillSpecError(
            "there is no metric module at this path",
            where=str(script),
            fix="give the path of a folder NAME with NAME.py in it, or one of the built-in names: "
            + ", ".join(builtin.names("metric")),
        )
    folder = _cache_folder()
    try:
        # An existing path is never looked up on the Hub; the module is copied and imported.
        return evaluate.load(
            str(script.resolve()), cache_dir=str(folder / "metrics"), keep_in_memory=True
        )
    except Exception as error:  # the user's code may raise anything
        raise DistillSpecError(
            f"the metric cannot be loaded: {type(error).__name__}: {error}",
            where=str(script),
            fix="the module must define one subclass of evaluate.Metric",
        ) from error


@cache
def _cache_folder() -> Path:
    """The folder for `evaluate`'s copies of modules: its cache, or a temporary one if read-only.

    One folder per process, because Python imports the copies as one package.
    """
    usual = Path(evaluate.config.HF_MODULES_CACHE)
    with contextlib.suppress(OSError):
        usual.mkdir(parents=True, exist_ok=True)
        if os.access(usual, os.W_OK):
            return usual
    folder = Path(tempfile.mkdtemp(prefix="distillspec-metrics-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log.info("%s is not writable: metric modules are copied to %s", usual, folder)
    # `evaluate` reads this global when it copies a module.
    evaluate.config.HF_MODULES_CACHE = folder
    return folder

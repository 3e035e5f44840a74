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
    """finished: the text ended with an end-of-text token. reference: None where there is none."""

    prompt: str
    text: str
    finished: bool
    reference: str | None


def score(metric: str, completions: Sequence[Completion]) -> dict[str, float]:
    """Numbers by name, from a metric that lies at the path `metric`: a folder or a .py file.

    A metric is given what its features name: `predictions`, `references`, `prompts`, `finished`.
    One that wants references is asked about the completions that have one; an empty result says
    that there were none. Nothing is downloaded. Raises DistillSpecError.
    """
    module = _load(metric)
    wanted = set(module.features)
    columns: dict[str, list[Any]] = {
        "predictions": [one.text for one in completions],
        "prompts": [one.prompt for one in completions],
        "finished": [one.finished for one in completions],
        "references": [one.reference for one in completions],
    }
    unknown = wanted - set(columns)
    if unknown:
        raise DistillSpecError(
            f"the metric wants {', '.join(sorted(unknown))}, which completions do not have",
            where=metric,
            fix=f"use a metric whose features are among {', '.join(sorted(columns))}",
        )
    kept = [
        i
        for i, one in enumerate(completions)
        if "references" not in wanted or one.reference is not None
    ]
    if not kept:
        return {}
    result = module.compute(**{name: [columns[name][i] for i in kept] for name in wanted})
    return {name: float(value) for name, value in result.items() if isinstance(value, int | float)}


def name_of(metric: str) -> str:
    """A metric's short name: its file's."""
    return Path(metric).stem


def _load(metric: str) -> Any:
    path = builtin.find("metric", metric)
    script = path if path.suffix == ".py" else path / f"{path.name}.py"
    if not script.is_file():
        raise DistillSpecError(
            "there is no metric module here",
            where=str(script),
            fix="give the path of a folder NAME with NAME.py in it, or one of the built-in names: "
            + ", ".join(builtin.names("metric")),
        )
    folder = _cache_folder()
    try:
        # A path that exists is never looked up on the Hub; the module is copied and imported.
        return evaluate.load(
            str(script.resolve()), cache_dir=str(folder / "metrics"), keep_in_memory=True
        )
    except Exception as error:  # code of the user's runs here and may raise anything
        raise DistillSpecError(
            f"the metric cannot be loaded: {type(error).__name__}: {error}",
            where=str(script),
            fix="the module must define one subclass of evaluate.Metric",
        ) from error


@cache
def _cache_folder() -> Path:
    """Where `evaluate` copies modules to: its own cache, or a temporary one if that is read-only.

    One folder per process: Python imports the copies as one package, which cannot move.
    """
    usual = Path(evaluate.config.HF_MODULES_CACHE)
    with contextlib.suppress(OSError):
        usual.mkdir(parents=True, exist_ok=True)
        if os.access(usual, os.W_OK):
            return usual
    folder = Path(tempfile.mkdtemp(prefix="distillspec-metrics-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log.info("%s is not writable: metric modules are copied to %s", usual, folder)
    evaluate.config.HF_MODULES_CACHE = folder
    return folder

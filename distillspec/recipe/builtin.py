"""Recipes, suites, metrics and models that come with the package: found by name from any folder.

A *name* has no separator and no suffix: `nano-python`, `quick`, `parses`. Anything else is a path
and never means a built-in file. A file of the current folder that has the very name comes first.
In an installed package the files lie in `distillspec/builtin/` (setup.py puts them there), in a
checkout where they are edited. Imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from distillspec.recipe.published import PublishedFolder, published_at, published_folder
from distillspec.text.nearest import nearest

Kind = Literal["recipe", "suite", "comparison", "metric", "model"]

_PACKAGE = Path(__file__).resolve().parents[1]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SUFFIXES = (".yaml", ".yml", ".json", ".py")
_COMPARISON = re.compile(rb"^kind: *[\"']?comparison\b", re.MULTILINE)
# Of the package's models: their folders, also as the recipes of the checkout name them.
_MODELS = tuple(f"nano-python/{name}" for name in ("target", "target-sympy", "target-cpp", "draft"))
_CHECKPOINTS = "checkpoints/"
# Kind -> folder in an installed package, folder in a checkout.
_FOLDERS: dict[Kind, tuple[str, str]] = {
    "recipe": ("recipes", "recipes"),
    "suite": ("suites", "eval/suites"),
    "comparison": ("suites", "eval/suites"),
    "metric": ("metrics", "eval/metrics"),
    "model": ("models", "checkpoints"),
}


def is_name(written: str) -> bool:
    """Whether `written` can name a built-in file; a path cannot."""
    return bool(_NAME.fullmatch(written)) and not written.endswith(_SUFFIXES)


def names(kind: Kind) -> list[str]:
    """The built-in names of a kind, sorted."""
    return sorted(_files(kind))


def find(kind: Kind, written: str | Path) -> Path:
    """The file of a recipe, suite or comparison, or the folder of a metric.

    Args:
        kind: What is looked for.
        written: A path, or a name; a `Path` is a path.

    Returns:
        The path as written, or the built-in one of that name. Nothing is checked: a name that
        matches nothing comes back as a path of the current folder, and `hint` says what to write.
    """
    path = Path(written)
    if isinstance(written, Path):  # has lost a leading ./
        return path
    in_folder = {"metric": f"{path}.py", "recipe": "recipe.yaml"}.get(kind)
    if not is_name(written) or os.path.isfile(path):
        return path
    if in_folder is not None and os.path.isfile(path / in_folder):  # a metric, or a run's folder
        return path
    return _files(kind).get(written, path)


def hint(kind: Kind, name: str) -> str:
    """For the `fix` of an error about an unknown name: the nearest one, and all there are."""
    known = names(kind)
    guess = nearest(name, known)
    start = f"did you mean '{guess}'? " if guess is not None else ""
    return f"{start}the built-in names are {', '.join(known)}; a file needs its path: ./{name}"


def located(model: str) -> str:
    """Where the model `model` lies: that path, or the built-in folder if there is nothing.

    The built-in models are the folders of `nano-python/`, with or without `checkpoints/` before.
    A published model lies where `fetch` puts it, whether it has been fetched or not.
    """
    name = model.removeprefix("./").removeprefix(_CHECKPOINTS).rstrip("/")
    if os.path.lexists(model):
        return model
    if (fetched := published_folder(name)) is not None:
        return str(fetched.path)
    if name not in _MODELS:
        return model
    folder = _folder("model") / name
    return str(folder) if folder.is_dir() else model


def published(model: str) -> PublishedFolder | None:
    """The published folder that `model` names; None where a folder of that name lies here."""
    return published_at(Path(located(model)))


def shipped_draft(name: str) -> Path:
    """The folder of the draft that the package ships for a published model."""
    return _folder("model") / name / "draft"


def _folder(kind: Kind) -> Path:
    installed, in_checkout = _FOLDERS[kind]
    packaged = _PACKAGE / "builtin" / installed
    return packaged if packaged.is_dir() else _PACKAGE.parent / in_checkout


def _files(kind: Kind) -> dict[str, Path]:
    return {path.stem: path for path in _of_kind(kind)}


def _of_kind(kind: Kind) -> Iterator[Path]:
    folder = _folder(kind)
    if kind == "metric":
        yield from (path for path in folder.glob("[!._]*") if (path / f"{path.name}.py").is_file())
        return
    for path in folder.glob("[!._]*.yaml"):
        if kind == "recipe" or _is_comparison(path) == (kind == "comparison"):
            yield path


def _is_comparison(path: Path) -> bool:
    return _COMPARISON.search(path.read_bytes()) is not None

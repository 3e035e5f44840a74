"""What the verbs' command lines have in common: the recipe, its overrides, and looking before."""

from __future__ import annotations

import json
import math
import os
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.recipe import builtin
from distillspec.recipe.dry_run import plan, render
from distillspec.recipe.loading import dump_yaml, load_recipe
from distillspec.recipe.output import RUNS
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.schema import Recipe
from distillspec.recipe.suite import Suite
from distillspec.runtime.world import World
from distillspec.text.foreign import say


class Request(NamedTuple):
    """What to run: a new run of a recipe (folder None), or the run in a folder, resumed."""

    recipe: Recipe
    folder: Path | None


def add_recipe(parser: ArgumentParser, *, or_run_folder: bool = False) -> None:
    """RECIPE (or a run folder), `section.key=value` overrides, --dry-run and --dump-config."""
    if or_run_folder:
        parser.add_argument(
            "path", metavar="RECIPE|RUN-FOLDER", help="a YAML file or a built-in name, or a run"
        )
    else:
        parser.add_argument("path", metavar="RECIPE", help="a YAML file or a built-in name")
    parser.add_argument(
        "overrides", metavar="section.key=value", nargs="*", help="change a value of the recipe"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print what would happen, and stop"
    )
    parser.add_argument(
        "--dump-config", action="store_true", help="print the resolved recipe as YAML, and stop"
    )


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that takes whole numbers from `least` to `most`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[-+]?[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise ArgumentTypeError(f"must be a whole number from {least:,} to {most:,}")
        return int(text)

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """The type of an option that takes numbers from `least` to `most`; nan is none of them."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise ArgumentTypeError(f"must be a number from {least:g} to {most:g}, not {text[:40]}")
        return value

    return read


def add_run_folder(parser: ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN-FOLDER", help="a folder that a run has written")


def distillation(arguments: Namespace) -> Recipe:
    """The distillation recipe that the command line names, with its overrides."""
    recipe = load_recipe(arguments.path, arguments.overrides)
    if isinstance(recipe, PretrainRecipe):
        raise DistillSpecError(
            "this recipe makes a model from nothing; it distils no pair",
            where=str(arguments.path),
            fix=f"start it with: distillspec pretrain {arguments.path}",
        )
    return recipe


def pretraining(arguments: Namespace) -> PretrainRecipe:
    """The pretraining recipe that the command line names, with its overrides."""
    recipe = load_recipe(arguments.path, arguments.overrides)
    if isinstance(recipe, Recipe):
        raise DistillSpecError(
            "this recipe distils a pair; `pretrain` needs one with `kind: pretrain`",
            where=str(arguments.path),
            fix=f"start it with: distillspec run {arguments.path}",
        )
    return recipe


def request(arguments: Namespace, *, fetches: bool = False) -> Request:
    """A new run of a recipe file, or the run of a folder; a resumed run keeps its recipe.

    Args:
        arguments: The command line.
        fetches: Whether to get published models that were never fetched.
    """
    # A built-in name is a recipe, even if there is a plain folder of this name.
    is_recipe = builtin.find("recipe", arguments.path) != Path(arguments.path)
    if is_recipe or not os.path.isdir(arguments.path):
        recipe = distillation(arguments)
        if not (arguments.dump_config or arguments.dry_run):
            if fetches:
                _fetch_missing(recipe)
            plan(recipe, arguments.path)  # what would fail hours later fails now
        return Request(recipe, None)
    folder = run_folder(arguments.path)
    if arguments.overrides:
        raise DistillSpecError(
            f"a resumed run keeps its recipe; it takes no '{arguments.overrides[0]}'",
            where=str(folder),
            fix=f"resume it without overrides, or start a new run of {folder / 'recipe.yaml'}",
        )
    arguments.path = str(folder / "recipe.yaml")
    return Request(distillation(arguments), folder)


def _fetch_missing(recipe: Recipe) -> None:
    """Get a pair's published models that were never fetched, as models of the Hub are downloaded.

    Several processes would fetch into one folder at once: they get the error that names the verb.
    """
    named = [name for name in (recipe.pair.target, recipe.pair.draft) if isinstance(name, str)]
    folders = [folder for name in named if (folder := builtin.published(name)) is not None]
    models = {folder.model.name: folder.model for folder in folders if not folder.path.exists()}
    if not models or World.from_environment().size > 1:
        return
    from distillspec.workflows import fetch

    for model in models.values():
        fetch.fetch(model)


def run_folder(path: str) -> Path:
    """`path` as the folder of a run; anything else is a DistillSpecError."""
    folder = Path(path)
    try:
        os.stat(folder / "recipe.yaml")
    except PermissionError as error:
        raise DistillSpecError(
            f"the folder of this run cannot be read: {error.strerror}",
            where=path,
            fix="change the permissions of the folder and of those that it lies in",
        ) from error
    except (OSError, ValueError):
        pass  # reported below
    if not os.path.isfile(folder / "recipe.yaml"):
        fault = "has no recipe.yaml" if os.path.isdir(folder) else "is not a folder"
        raise DistillSpecError(
            f"'{path}' is not the folder of a run: it {fault}",
            where="command line",
            fix=f"run folders are {RUNS}/<recipe>/<run id>",
        )
    return folder


def latest_run(recipe: Recipe) -> Path:
    """As `newest_run`, which there must be."""
    newest = newest_run(recipe)
    if newest is None:
        raise DistillSpecError(
            f"the recipe '{recipe.name}' has not been run yet",
            where=str(RUNS / recipe.name),
            fix="start it with: distillspec run RECIPE",
        )
    return newest


def newest_run(recipe: Recipe) -> Path | None:
    """The trained run of `recipe` that was started last, by the time of its recipe.yaml."""
    # Hidden folders are those of unfinished writers.
    trained = (p.parent for p in (RUNS / recipe.name).glob("[!.]*/best.ckpt"))
    started = sorted(
        (p for run in trained if (p := run / "recipe.yaml").exists()),
        key=lambda p: p.stat().st_mtime,
    )
    return started[-1].parent if started else None


def only_look(
    arguments: Namespace,
    recipe: Recipe | PretrainRecipe,
    *,
    as_json: bool,
    suite: Suite | None = None,
    drafts: Collection[str] | None = None,
) -> bool:
    """Serve --dump-config and --dry-run; True when one was asked for: there is no more to do.

    Args:
        arguments: The command line.
        recipe: The recipe to show.
        as_json: Whether to print JSON in place of text.
        suite: The recipe's suite, where the command line has changed it.
        drafts: The drafts of the run that is evaluated, where there is a run.
    """
    if arguments.dump_config:
        values = recipe.model_dump(mode="json")
        say(json.dumps(values, indent=2) if as_json else dump_yaml(recipe).rstrip("\n"))
    if arguments.dry_run:
        lines = plan(recipe, arguments.path, suite, drafts)
        say(json.dumps([line._asdict() for line in lines], indent=2) if as_json else render(lines))
    return bool(arguments.dump_config or arguments.dry_run)

"""`evaluate`: measure the drafts of a run by decoding with them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distillspec.commands.arguments import add_recipe, latest_run, newest_run, only_look, request
from distillspec.recipe.endpoint import refuse_endpoint
from distillspec.recipe.loading import is_of_suite, load_suite
from distillspec.recipe.schema import Recipe
from distillspec.workflows.run_folder import RunFolder


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser, or_run_folder=True)
    parser.add_argument("--suite", metavar="SUITE", help="plan to follow; default: the recipe's")
    parser.epilog = (
        "Keys that only a suite has change the suite, as `suite.` does with any of its keys: "
        "prompts.source.path=FILE, suite.name=mine."
    )


def main(arguments: Namespace) -> int:
    changes = [text.removeprefix("suite.") for text in arguments.overrides if is_of_suite(text)]
    arguments.overrides = [text for text in arguments.overrides if not is_of_suite(text)]
    recipe, folder = request(arguments)
    refuse_endpoint(recipe.pair.endpoint, "evaluate")
    path = arguments.suite or recipe.evaluate.suite
    suite = load_suite(path, changes)
    plan = recipe.evaluate.model_copy(update={"suite": path})
    recipe = recipe.model_copy(update={"evaluate": plan})
    if only_look(arguments, recipe, as_json=False, suite=suite, drafts=_drafts(recipe, folder)):
        return 0
    folder = latest_run(recipe) if folder is None else folder
    from distillspec.workflows import evaluate

    return evaluate.evaluate(folder, path, changes)


def _drafts(recipe: Recipe, folder: Path | None) -> list[str] | None:
    """Those of the run that would be measured; None where the recipe was not run yet."""
    run = newest_run(recipe) if folder is None else folder
    return None if run is None else ["undistilled", *RunFolder(run).trained]

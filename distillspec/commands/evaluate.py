"""`evaluate`: measure the drafts of a run by decoding with them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.commands.arguments import add_recipe, latest_run, only_look, request
from distillspec.recipe.loading import load_suite


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser, or_run_folder=True)
    parser.add_argument("--suite", metavar="SUITE", help="plan to follow; default: the recipe's")


def main(arguments: Namespace) -> int:
    recipe, folder = request(arguments)
    suite = arguments.suite or recipe.evaluate.suite
    load_suite(suite)
    plan = recipe.evaluate.model_copy(update={"suite": suite})
    recipe = recipe.model_copy(update={"evaluate": plan})
    if only_look(arguments, recipe, as_json=False):
        return 0
    folder = latest_run(recipe) if folder is None else folder
    from distillspec import stages

    return stages.evaluate(folder, suite)

"""`train`: distil the draft, without evaluation; or resume a run's training."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.commands.arguments import add_recipe, only_look, request


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser, or_run_folder=True)


def main(arguments: Namespace) -> int:
    recipe, folder = request(arguments, fetches=True)
    if only_look(arguments, recipe, as_json=False):
        return 0
    from distillspec.workflows import distill

    return distill.train(recipe, folder)

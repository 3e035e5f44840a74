"""`generate`: sample the target's responses to the training prompts, and store them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.commands.arguments import add_recipe, distillation, only_look


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)


def main(arguments: Namespace) -> int:
    recipe = distillation(arguments)
    if only_look(arguments, recipe, as_json=False):
        return 0
    from distillspec.workflows import generate

    return generate.generate(recipe)

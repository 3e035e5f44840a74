"""`pretrain`: train a model on a corpus, from nothing or further: half of a nano pair."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.commands.arguments import add_recipe, only_look, pretraining


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint of this recipe"
    )


def main(arguments: Namespace) -> int:
    recipe = pretraining(arguments)
    if only_look(arguments, recipe, as_json=False):
        return 0
    from distillspec.workflows import pretrain as stage

    return stage.run(recipe, resume=arguments.resume)

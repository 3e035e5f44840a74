"""`check`: say before training whether the pair fits and what it can gain on this machine."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.commands.arguments import add_recipe, distillation, number, only_look


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--min-speedup",
        type=number(0.0, 1e6),
        metavar="X",
        help="exit with 2 when the predicted speed-up is below X",
    )


def main(arguments: Namespace) -> int:
    recipe = distillation(arguments)
    if only_look(arguments, recipe, as_json=arguments.json):
        return 0
    from distillspec.workflows import check

    return check.run(recipe, as_json=arguments.json, min_speedup=arguments.min_speedup)

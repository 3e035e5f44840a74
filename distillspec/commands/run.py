"""`run`: train, export, evaluate and report by a recipe; or resume a run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.commands.arguments import add_recipe, only_look, request
from distillspec.errors import DistillSpecError


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser, or_run_folder=True)
    parser.add_argument("--json", action="store_true", help="--dry-run, --dump-config: as JSON")


def main(arguments: Namespace) -> int:
    if arguments.json and not (arguments.dry_run or arguments.dump_config):
        raise DistillSpecError(
            "--json belongs to --dry-run and --dump-config",
            where="command line: distillspec run",
            fix="a run writes its numbers to evaluation/<suite>/summary.json in its folder",
        )
    recipe, folder = request(arguments, fetches=True)
    if only_look(arguments, recipe, as_json=arguments.json):
        return 0
    from distillspec.workflows import distill

    return distill.run(recipe, folder)

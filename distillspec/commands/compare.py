"""`compare`: train variants of a recipe at equal cost, and measure them on the same texts."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.recipe.loading import dump_yaml, load_comparison
from distillspec.text.foreign import say


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", metavar="COMPARISON", help="a YAML file or a built-in name")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="change a value of the comparison"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check every variant, say what would happen, stop"
    )
    parser.add_argument(
        "--dump-config", action="store_true", help="print the resolved comparison, and stop"
    )
    parser.epilog = "Goes on where it was interrupted, run by run."


def main(arguments: Namespace) -> int:
    comparison = load_comparison(arguments.path, arguments.overrides)
    if arguments.dump_config:
        say(dump_yaml(comparison).rstrip("\n"))
        return 0
    if arguments.dry_run:
        from distillspec.workflows.compare_variants import print_variants

        return print_variants(comparison)
    from distillspec.workflows import compare

    return compare.run(comparison)

"""`report`: write a run's tables and figures again from its measured rows."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.commands.arguments import add_run_folder, number, run_folder


def add_arguments(parser: ArgumentParser) -> None:
    add_run_folder(parser)
    parser.add_argument(
        "--price-per-hour",
        type=number(0.0, 1e9),
        metavar="PRICE",
        help="price of a GPU, or of a machine without GPUs, for what distilling cost",
    )


def main(arguments: Namespace) -> int:
    folder = run_folder(arguments.folder)
    from distillspec.workflows import evaluate

    return evaluate.report(folder, arguments.price_per_hour)

"""`report`: write a run's tables and figures again from its measured rows."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.commands.arguments import add_run_folder, run_folder


def add_arguments(parser: ArgumentParser) -> None:
    add_run_folder(parser)


def main(arguments: Namespace) -> int:
    folder = run_folder(arguments.folder)
    from distillspec.workflows import evaluate

    return evaluate.report(folder)

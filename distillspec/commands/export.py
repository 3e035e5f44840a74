"""`export`: write a run's draft as a plain Hugging Face folder, and upload it where asked."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.commands.arguments import add_run_folder, run_folder


def add_arguments(parser: ArgumentParser) -> None:
    add_run_folder(parser)
    parser.add_argument("--push", metavar="USER/NAME", help="upload to this Hub repository")


def main(arguments: Namespace) -> int:
    folder = run_folder(arguments.folder)
    from distillspec.workflows import export

    return export.export(folder, arguments.push)

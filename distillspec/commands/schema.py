"""`schema`: print the JSON schema of recipes, for editors."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from distillspec.recipe.loading import json_schema, suite_json_schema


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--suite", action="store_true", help="of evaluation suites instead")


def main(arguments: Namespace) -> int:
    schema = suite_json_schema() if arguments.suite else json_schema()
    print(json.dumps(schema, indent=2))
    return 0

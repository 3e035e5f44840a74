"""`schema`: print the JSON schema of recipes, for editors."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from distillspec.recipe.loading import comparison_json_schema, json_schema, suite_json_schema
from distillspec.text.foreign import say


def add_arguments(parser: ArgumentParser) -> None:
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--suite", action="store_true", help="of evaluation suites instead")
    instead.add_argument("--comparison", action="store_true", help="of comparisons instead")


def main(arguments: Namespace) -> int:
    schema = json_schema()
    if arguments.suite:
        schema = suite_json_schema()
    elif arguments.comparison:
        schema = comparison_json_schema()
    say(json.dumps(schema, indent=2))
    return 0

"""Writes the generated pages: cli, recipe, suite and comparison of docs/reference, and the results.

    python docs/generate.py            # writes all of them
    python docs/generate.py --check    # writes nothing; exit code 1 if a page is stale

The reference is made from the argument parsers and the schemas; `generated_pages.py` has the text
around its tables. `results.py` makes docs/explanation/results.md from eval/results/, and
`main_job.py` the README's table. All other pages are written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from distillspec.commands.dispatch import COMMANDS  # noqa: E402
from distillspec.recipe.incompatible import FileKind, markdown_rows  # noqa: E402
from distillspec.recipe.loading import (  # noqa: E402
    comparison_json_schema,
    json_schema,
    suite_json_schema,
)
from docs import main_job, results  # noqa: E402
from docs.generated_pages import CLI, COMPARISON, INCOMPATIBLE, RECIPE, SUITE  # noqa: E402
from docs.kept import read_results  # noqa: E402

DOCS = ROOT / "docs"
README = "../README.md"
NOTE = "<!-- Written by docs/generate.py: change the source, then run it again. -->\n"
Schema = dict[str, Any]

UNITS = (
    ("seconds", "seconds"),
    ("minutes", "minutes"),
    ("percent", "percent"),
    ("steps", "steps"),
    ("tokens", "tokens"),
    ("gamma", "tokens"),
    ("gammas", "tokens"),
    ("packing", "tokens"),
    ("context", "tokens"),
    ("max_positions", "tokens"),
)
"""Last word of a key -> its unit."""


# --- command line --------------------------------------------------------------------------------


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The argument parser of a verb, as the command line makes it."""
    parser = argparse.ArgumentParser(prog=f"distillspec {verb}")
    COMMANDS[verb].add_arguments(parser)
    return parser


def cli_body() -> str:
    parts = []
    for verb, command in COMMANDS.items():
        summary = (command.__doc__ or "").partition(": ")[2].splitlines()[0]
        parser = parser_of(verb)
        usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
        rows = [_argument_row(action) for action in parser._actions if action.dest != "help"]
        table = _table(("argument", "values", "default", "meaning"), rows)
        epilog = f"\n{parser.epilog}\n" if parser.epilog else ""
        parts.append(
            f"## {verb}\n\n{_sentence(summary)}\n\n```text\n{usage}\n```\n\n{table}{epilog}"
        )
    return "\n".join(parts)


def _argument_row(action: argparse.Action) -> tuple[str, str, str, str]:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    values = ""
    if action.choices is not None:
        values = ", ".join(f"`{choice}`" for choice in action.choices)
    elif action.option_strings and action.nargs != 0:
        values = f"`{action.metavar or action.dest.upper()}`"
    is_plain = action.default is None or action.nargs in (0, "*")
    default = "" if is_plain else f"`{action.default}`"
    return f"`{name}`", values, default, _sentence(action.help or "")


# --- schemas -------------------------------------------------------------------------------------


class Section(NamedTuple):
    """One table: the place in the YAML, the schema of an object, the kinds it belongs to."""

    title: str
    node: Schema


def schema_body(schema: Schema, root: Schema, title: str, titles: dict[str, str]) -> str:
    """Tables of `root` and all below it; titles: of the sections that a page has already."""
    definitions: dict[str, Schema] = schema["$defs"]
    sections = list(_sections(Section(title, root), "", definitions, titles))
    parts = []
    for section in sections:
        rows = [
            _key_row(name, value, section.node, definitions, titles)
            for name, value in section.node["properties"].items()
        ]
        summary = section.node.get("description", "")
        summary = f"{_sentence(' '.join(summary.split()))}\n\n" if summary else ""
        table = _table(("key", "type", "default", "unit, range", "meaning"), rows)
        level = "##" if section.node is root else "###"
        parts.append(f"{level} {section.title}\n\n{summary}{table}")
    return "\n".join(parts)


def _sections(
    section: Section, path: str, definitions: dict[str, Schema], titles: dict[str, str]
) -> Iterator[Section]:
    """The object itself, then every object below it, each once, at its first place."""
    yield section
    below: list[tuple[Section, str]] = []
    for key, node in section.node["properties"].items():
        place = f"{path}.{key}" if path else key
        for name in _references(node):
            found = definitions[name]
            if name in titles or "properties" not in found:
                continue
            kind = found["properties"].get("kind", {})
            tag = kind.get("const")
            titles[name] = f"{place}, kind: {tag}" if tag else place
            below.append((Section(titles[name], found), place))
    for child, place in below:
        yield from _sections(child, place, definitions, titles)


def _references(node: Schema) -> Iterator[str]:
    if "$ref" in node:
        yield node["$ref"].rpartition("/")[2]
    for key in ("anyOf", "oneOf"):
        for one in node.get(key, ()):
            yield from _references(one)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from _references(node[key])
    for one in node.get("patternProperties", {}).values():
        yield from _references(one)


def _key_row(
    name: str, node: Schema, owner: Schema, definitions: dict[str, Schema], titles: dict[str, str]
) -> tuple[str, ...]:
    meaning = node.get("description", "")
    if not meaning and "$ref" in node:
        meaning = definitions[node["$ref"].rpartition("/")[2]].get("description", "")
    default = f"`{json.dumps(node['default'], ensure_ascii=False)}`" if "default" in node else ""
    if name in owner.get("required", ()):
        default = "required"
    elif "default" in node and node["default"] is None:
        default = "*none*"
    elif not default:
        default = "*see the section*" if "$ref" in node else "*see the meaning*"
    words = _words(node, titles)
    bounds = _bounds(node, name)
    return f"`{name}`", words, default, bounds, _sentence(" ".join(meaning.split()))


def _words(node: Schema, titles: dict[str, str]) -> str:
    """The type of a key in words: `jsd` or `tvd`; number; list of text; link to a section."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return f"[{titles[name]}](#{_anchor(titles[name])})" if name in titles else "any value"
    for key in ("anyOf", "oneOf"):
        if key in node:
            parts = [_words(one, titles) for one in node[key] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(parts))
    if "enum" in node:
        return ", ".join(f"`{one}`" for one in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    kind = node.get("type", "any value")
    if kind == "array":
        if "prefixItems" in node:
            return "list of " + ", ".join(_words(one, titles) for one in node["prefixItems"])
        return f"list of {_words(node.get('items', {}), titles)}"
    if kind == "object":
        values = [*node.get("patternProperties", {}).values()]
        more = node.get("additionalProperties")
        values += [more] if isinstance(more, dict) else []
        return f"mapping to {_words(values[0], titles)}" if values else "mapping"
    if node.get("format") == "date":
        return "date"
    plain = {"string": "text", "integer": "whole number", "boolean": "`true`, `false`"}
    return plain.get(kind, str(kind))


def _bounds(node: Schema, name: str) -> str:
    nodes = [node, *node.get("anyOf", ()), node.get("items", {})]
    numbers = [one for one in nodes if one.get("type") in ("integer", "number")]
    unit = next((unit for word, unit in UNITS if name.endswith(word)), "") if numbers else ""
    found = []
    for one in numbers:
        low, high = one.get("minimum"), one.get("maximum")
        above, below = one.get("exclusiveMinimum"), one.get("exclusiveMaximum")
        parts = [
            f"at least {low:,}" if low is not None else "",
            f"above {above:,}" if above is not None else "",
            f"at most {high:,}" if high is not None else "",
            f"below {below:,}" if below is not None else "",
        ]
        found.append(", ".join(part for part in parts if part))
    found = [one for one in found if one]
    return "; ".join(part for part in (unit, *found) if part)


def incompatible_body(*kinds: FileKind) -> str:
    """The settings that cannot be combined in files of these kinds, a table for each."""
    titles = {"recipe": "### In a distillation\n\n", "pretrain": "### In a pretraining\n\n"}
    tables = (
        titles.get(kind, "") + "".join(f"{row}\n" for row in markdown_rows(kind)) for kind in kinds
    )
    return f"## Settings that cannot be combined\n\n{INCOMPATIBLE}\n" + "\n".join(tables)


# --- Markdown ------------------------------------------------------------------------------------


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(one) for one in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _sentence(text: str) -> str:
    """With a capital and a full stop; a value or a key at the beginning stays as it is."""
    first = text.partition(" ")[0]
    is_word = first.rstrip(",;").isalpha()
    start = text[:1].upper() if is_word else text[:1]
    return start + text[1:].removesuffix(".") + "." if text else ""


def _anchor(title: str) -> str:
    """As Markdown viewers make it: lower case, letters, digits and hyphens."""
    kept = "".join(one for one in title.lower() if one.isalnum() or one in " -_")
    return kept.replace(" ", "-")


def pages() -> dict[str, str]:
    """Place in docs/ -> text of every generated page."""
    recipe, suite, comparison = json_schema(), suite_json_schema(), comparison_json_schema()
    definitions = recipe["$defs"]
    distill, pretrain = definitions["Recipe"], definitions["PretrainRecipe"]
    titles: dict[str, str] = {}
    bodies = {
        CLI: cli_body(),
        RECIPE: schema_body(recipe, distill, "Distillation recipes", titles)
        + "\n"
        + schema_body(recipe, pretrain, "Pretraining recipes", titles)
        + "\n"
        + incompatible_body("recipe", "pretrain"),
        SUITE: schema_body(suite, suite, "Keys of a suite", {}) + "\n" + incompatible_body("suite"),
        COMPARISON: schema_body(comparison, comparison, "Keys of a comparison", {}),
    }
    reference = {
        f"reference/{page.name}": f"{NOTE}\n{page.head}\n{body}\n{page.foot}"
        for page, body in bodies.items()
    }
    kept = read_results()
    return {
        **reference,
        "explanation/results.md": f"{NOTE}\n{results.page(kept)}",
        README: main_job.with_result((DOCS / README).read_text(encoding="utf-8"), kept),
    }


def stale() -> list[str]:
    """Places of generated pages that are not as they would be written now."""
    return [
        name
        for name, text in pages().items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != text
    ]


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--check", action="store_true", help="write nothing, name stale pages")
    if arguments.parse_args().check:
        sys.stdout.write("".join(f"stale: docs/{name}\n" for name in stale()))
        return 1 if stale() else 0
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

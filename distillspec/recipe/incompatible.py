"""The one table of settings that cannot be combined, for the validators and for the docs.

Each section of `schema` checks its own rules while it is loaded; `markdown_rows` shows all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from distillspec.recipe.data_rules import PROMPTS, ROWS
from distillspec.recipe.distill_rules import DISTILL, SOURCE
from distillspec.recipe.method_rules import ADAEDL, CHOOSE, METHOD
from distillspec.recipe.pair_rules import PAIR
from distillspec.recipe.pretrain_rules import PRETRAIN, TOKENIZER
from distillspec.recipe.recipe_rules import RECIPE
from distillspec.recipe.rule import Rule

FileKind = Literal["recipe", "suite", "pretrain"]
_SECTIONS: tuple[tuple[FileKind, str, tuple[Rule, ...]], ...] = (
    ("recipe", "pair", PAIR),
    ("recipe", "data.source", ROWS),
    ("recipe", "distill.source", SOURCE),
    ("recipe", "distill", DISTILL),
    ("recipe", "", RECIPE),
    ("suite", "prompts", PROMPTS),
    ("suite", "methods[]", METHOD),
    ("suite", "methods[].stop", ADAEDL),
    ("suite", "methods[].choose", CHOOSE),
    ("pretrain", "tokenizer", TOKENIZER),
    ("pretrain", "", PRETRAIN),
)


class Incompatible(NamedTuple):
    """One entry of the table.

    Attributes:
        kind: The file that has the settings; pretrain is a recipe of kind `pretrain`.
        section: Dotted name of the section that checks the rule; empty for the top level.
        rule: The rule, with its keys counted from the section.
    """

    kind: FileKind
    section: str
    rule: Rule

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys in conflict, from the top level of the file."""
        prefix = f"{self.section}." if self.section else ""
        return tuple(f"{prefix}{key}" for key in self.rule.keys)


TABLE = tuple(
    Incompatible(kind, section, rule) for kind, section, rules in _SECTIONS for rule in rules
)


def markdown_rows(kind: FileKind) -> Iterator[str]:
    """The entries of one kind of file as a table of Markdown: keys, conflict, fix, reason."""
    yield "| keys | what cannot be combined | fix | why |"
    yield "|---|---|---|---|"
    for entry in TABLE:
        if entry.kind == kind:
            keys = ", ".join(f"`{key}`" for key in entry.keys)
            texts = (entry.rule.what, entry.rule.fix, entry.rule.why)
            cells = (text.replace("|", "\\|") for text in texts)
            yield f"| {keys} | {' | '.join(cells)} |"

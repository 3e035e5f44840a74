"""Each entry of the table is walked in the test of its rules; here, that there are no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe import yaml_text
from distillspec.recipe.comparison import ComparisonConfig
from distillspec.recipe.expectation import root
from distillspec.recipe.incompatible import TABLE, FileKind, markdown_rows
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.schema import Recipe
from distillspec.recipe.section import Section
from distillspec.recipe.suite import Suite
from tests.recipe.rule_walk import BASES, changed


def sections(model: type[Section]) -> set[type[Section]]:
    """All sections that are loaded with a file of this kind."""
    defined = set(root(model.model_json_schema()).definitions)
    known = [model, *subclasses(Section)]
    return {kind for kind in known if kind is model or kind.__name__ in defined}


def subclasses(model: type[Section]) -> list[type[Section]]:
    return [inner for kind in model.__subclasses__() for inner in (kind, *subclasses(kind))]


def test_the_table_has_the_rules_of_every_section() -> None:
    files = (Recipe, PretrainRecipe, Suite, ComparisonConfig)
    checked = {id(rule) for file in files for kind in sections(file) for rule in kind.rules}
    assert checked == {id(entry.rule) for entry in TABLE}


def test_an_override_that_breaks_a_rule_is_named_with_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    values = changed(BASES["recipe"], "", {"optimizer.ema": 0.9})
    path.write_text(yaml_text.write(values), encoding="utf-8")
    with pytest.raises(DistillSpecError) as caught:
        load_recipe(path, ["hardware.strategy=zero3"])
    assert caught.value.where == (
        f"{path}, override 'hardware.strategy=zero3': optimizer.ema, hardware.strategy"
    )


def test_the_table_is_rendered_as_markdown() -> None:
    kinds: tuple[FileKind, ...] = ("recipe", "suite", "pretrain")
    tables = {kind: list(markdown_rows(kind)) for kind in kinds}
    assert sum(len(rows) - 2 for rows in tables.values()) == len(TABLE)
    for head, _, *rows in tables.values():
        assert all(row.count(" | ") == 3 for row in (head, *rows))
    assert any("`distill.divergence`, `pair.draft_head`" in row for row in tables["recipe"])

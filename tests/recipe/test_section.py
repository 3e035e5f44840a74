from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from distillspec.recipe.comparison import ComparisonConfig
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.schema import Recipe
from distillspec.recipe.section import Count, Decay, FolderName, Section, Share
from distillspec.recipe.suite import Suite


class Part(Section):
    share: Share = 0.5
    count: Count = 1
    decay: Decay = 0.9
    name: FolderName = ""


def test_values_stay_in_their_ranges_and_do_not_change() -> None:
    assert Part(share=1.0, count=3, decay=0.0, name="a.b").count == 3
    for values in (
        {"share": 1.1},
        {"share": -0.1},
        {"count": 0},
        {"decay": 1.0},
        {"name": "a/b"},
        {"name": ".hidden"},
    ):
        with pytest.raises(ValidationError):
            Part.model_validate(values)
    with pytest.raises(ValidationError, match="frozen"):
        Part().count = 2  # type: ignore[misc]


def test_unknown_keys_are_errors() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Part.model_validate({"cuont": 2})


def unbounded(node: Any, path: str = "") -> Iterator[str]:
    """Where a JSON schema takes numbers of any size."""
    if isinstance(node, dict):
        is_number = node.get("type") in ("integer", "number")
        if is_number and not {"maximum", "exclusiveMaximum", "const"} & node.keys():
            yield path
        for key, part in node.items():
            yield from unbounded(part, f"{path}/{key}")
    elif isinstance(node, list):
        for part in node:
            yield from unbounded(part, path)


@pytest.mark.parametrize("model", [Recipe, Suite, ComparisonConfig, PretrainRecipe])
def test_every_number_has_an_upper_bound(model: type[Section]) -> None:
    assert list(unbounded(model.model_json_schema())) == []

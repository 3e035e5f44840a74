from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from distillspec.errors import DistillSpecError
from distillspec.recipe.loading import dump_yaml
from distillspec.recipe.schema import Recipe
from distillspec.recipe.start import LlamaShape, PrunedDraftConfig, RandomDraftConfig


def pruned(layers: Any, **cuts: int) -> PrunedDraftConfig:
    return PrunedDraftConfig(kind="pruned", layers=layers, **cuts)


@pytest.mark.parametrize(
    ("count", "of", "kept"),
    [
        (1, 16, (0,)),
        (2, 16, (0, 15)),
        (3, 16, (0, 8, 15)),
        (4, 16, (0, 5, 10, 15)),
        (5, 5, (0, 1, 2, 3, 4)),
        (4, 6, (0, 2, 3, 5)),
    ],
)
def test_a_number_of_layers_is_spread_from_the_first_to_the_last(
    count: int, of: int, kept: tuple[int, ...]
) -> None:
    assert pruned(count).kept_layers(of) == kept


@pytest.mark.parametrize("of", [7, 32, 80])
def test_no_layer_is_kept_twice(of: int) -> None:
    for count in range(1, of + 1):
        assert len(set(pruned(count).kept_layers(of))) == count


def test_named_layers_are_kept_as_they_are_named() -> None:
    assert pruned((1, 4)).kept_layers(5) == (1, 4)


def test_layers_that_the_target_has_not_are_refused() -> None:
    with pytest.raises(DistillSpecError, match="no layer 4, 9 to keep: the target has 4"):
        pruned((0, 4, 9)).kept_layers(4)
    with pytest.raises(DistillSpecError, match="5 layers cannot be kept: the target has 4"):
        pruned(5).kept_layers(4)


@pytest.mark.parametrize("layers", [(2, 1), (1, 1), (), (-1, 2), 0])
def test_layers_out_of_order_or_named_twice_are_no_plan(layers: Any) -> None:
    with pytest.raises(ValidationError):
        pruned(layers)


def test_a_plan_is_told_in_words() -> None:
    assert pruned(1).in_words() == "1 layer of the target"
    assert pruned((0, 3), intermediate_size=64, key_value_heads=2).in_words() == (
        "layers 0, 3 of the target, cut to intermediate size 64, key-value heads 2"
    )
    shape = LlamaShape(hidden_size=16, intermediate_size=32, layers=2, heads=2)
    assert RandomDraftConfig(kind="random", shape=shape).in_words() == (
        "random weights, Llama of 2 layers, hidden size 16"
    )


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden_size": 18, "heads": 2},
        {"hidden_size": 16, "heads": 4, "key_value_heads": 3},
    ],
)
def test_a_shape_whose_heads_do_not_divide_is_refused(shape: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="multiple"):
        LlamaShape.model_validate({"intermediate_size": 8, "layers": 1, **shape})


def test_a_recipe_with_a_made_draft_loads_again_from_what_is_written() -> None:
    source = {"kind": "jsonl", "path": "d.jsonl"}
    draft = {"kind": "pruned", "layers": [0, 3]}
    values = {"pair": {"target": "t", "draft": draft}, "data": {"source": source}}
    recipe = Recipe.model_validate_json(json.dumps(values), strict=True)
    assert recipe.pair.draft == pruned((0, 3))
    assert "layers: [0, 3]" in dump_yaml(recipe)


def test_principal_channels_need_a_width() -> None:
    plan = PrunedDraftConfig(kind="pruned", layers=2, hidden_size=128, channels="principal")
    assert plan.in_words() == "2 layers of the target, cut to principal directions 128"
    with pytest.raises(ValidationError, match="hidden_size is missing"):
        PrunedDraftConfig(kind="pruned", layers=2, channels="principal")

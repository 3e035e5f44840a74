from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.made_draft import made_draft_line
from distillspec.recipe.schema import Recipe
from distillspec.recipe.start import PrunedDraftConfig, RandomDraftConfig

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2))
    return tmp_path


def line(target: Path | str, freeze: bool = False, **draft: Any) -> str:
    recipe = Recipe.model_validate(
        {
            "pair": {"target": str(target), "draft": {"kind": "pruned", "layers": 2, **draft}},
            "data": {"source": {"kind": "chat-topics"}},
            "optimizer": {"freeze_embeddings": freeze},
        }
    )
    plan = recipe.pair.draft
    assert isinstance(plan, PrunedDraftConfig | RandomDraftConfig)
    return made_draft_line(recipe, plan, "r.yaml")


def test_the_layers_that_the_target_has_are_named(target: Path) -> None:
    assert line(target) == "made: 2 layers of the target (0, 29 of 0 to 29)"
    with pytest.raises(DistillSpecError, match="there is no layer 30 to keep: the target has 30"):
        line(target, layers=[0, 30])


def test_of_a_target_that_is_not_here_nothing_is_known() -> None:
    assert line("org/name", hidden_size=7) == "made: 2 layers of the target, cut to hidden size 7"


@pytest.mark.parametrize(
    ("widths", "what", "fix"),
    [
        ({"hidden_size": 600}, "hidden_size 600 cannot be kept: the target has 576", "576"),
        ({"intermediate_size": 1600}, "the target has 1536", "set at most 1536"),
        ({"key_value_heads": 4}, "the target has 3", "set at most 3"),
        ({"hidden_size": 200}, "no multiple of the 9 query heads that stay", "set 198 or 207"),
        (
            {"hidden_size": 200, "key_value_heads": 1},
            "no multiple of the 3 query heads that stay",
            "set 198 or 201",
        ),
        ({"hidden_size": 5}, "no multiple of the 9 query heads", "set 9, or"),
    ],
)
def test_widths_that_the_target_cannot_give_are_refused(
    target: Path, widths: dict[str, int], what: str, fix: str
) -> None:
    with pytest.raises(DistillSpecError) as caught:
        line(target, **widths)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.where.startswith("r.yaml: pair.draft.")


def test_widths_that_the_target_can_give_pass(target: Path) -> None:
    line(target, hidden_size=192, key_value_heads=1)
    line(target, hidden_size=576, intermediate_size=1536, key_value_heads=3)


def test_embeddings_of_a_narrow_draft_cannot_be_frozen(target: Path) -> None:
    with pytest.raises(DistillSpecError, match="cannot be combined with a narrow draft") as caught:
        line(target, freeze=True, hidden_size=192, key_value_heads=1)
    assert "remove pair.draft.hidden_size" in caught.value.fix
    line(target, freeze=True, key_value_heads=1)

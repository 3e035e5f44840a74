from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from distillspec.recipe.pretraining import PretrainRecipe, TokenizerConfig


@pytest.mark.parametrize("plan", [{}, {"vocab_size": 4096, "take_from": "x"}])
def test_a_tokenizer_is_either_trained_or_taken(plan: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        TokenizerConfig.model_validate(plan)


def test_a_pretraining_recipe_says_its_kind() -> None:
    recipe = {
        "output": "o",
        "corpus": {"kind": "python-source", "standard_library": True},
        "tokenizer": {"vocab_size": 300},
        "model": {"hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2},
    }
    assert PretrainRecipe.model_validate({"kind": "pretrain", **recipe}).train.context == 256
    with pytest.raises(ValidationError):
        PretrainRecipe.model_validate(recipe)
    with pytest.raises(ValidationError, match="greater than or equal to 2"):  # nothing to predict
        PretrainRecipe.model_validate({"kind": "pretrain", **recipe, "train": {"context": 1}})

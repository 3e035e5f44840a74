from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from distillspec.errors import DistillSpecError
from distillspec.recipe.rolls_back import RECURRENT, check_rolls_back


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mamba"},
        {"model_type": "qwen3_next", "layer_types": ["full_attention"]},
        {"model_type": "new", "layer_types": ["full_attention", "linear_attention"]},
        {"model_type": "shell", "text_config": {"layer_types": ["conv"]}},
        {"model_type": "shell", "text_config": {"model_type": "qwen3_5_text"}},
    ],
)
def test_a_running_state_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(DistillSpecError, match="cannot be rolled back"):
        check_rolls_back(config, "here")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "llama"},
        {"model_type": ["odd"], "layer_types": 5},
        {"layer_types": ["attention", "full_attention", "sliding_attention", "chunked_attention"]},
        {"model_type": "gemma3", "text_config": {"layer_types": ["sliding_attention"]}},
    ],
)
def test_attention_passes(config: dict[str, object]) -> None:
    check_rolls_back(config, "here")


def test_every_recurrent_language_model_of_transformers_is_known() -> None:
    models = Path(transformers.__file__).parent / "models"
    stateful = [
        file.parent
        for file in models.glob("*/modeling_*.py")
        if "_is_stateful = True" in file.read_text(encoding="utf-8")
    ]
    types = {
        name
        for folder in stateful
        for file in folder.glob("configuration_*.py")
        for name in re.findall(r'^    model_type = "(\w+)"', file.read_text("utf-8"), re.M)
    }
    found = types & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert "mamba" in found
    assert found <= RECURRENT

from __future__ import annotations

import re
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from distillspec.errors import DistillSpecError
from distillspec.recipe.rolls_back import RECURRENT, ROLLS_BACK, check_rolls_back


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mamba"},
        {"model_type": "qwen3_next", "layer_types": ["full_attention"]},
        {"model_type": "new", "layer_types": ["full_attention", "linear_attention"]},
        {"model_type": "shell", "text_config": {"layer_types": ["conv"]}},
        {"model_type": "lfm2", "num_hidden_layers": 2, "full_attn_idxs": [1]},
        {"model_type": "lfm2", "num_hidden_layers": 2, "full_attn_idxs": [1, 1, 5]},
        {"model_type": "minimax", "num_hidden_layers": 2},
        {"model_type": "lfm3", "num_hidden_layers": 2},
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
        {"model_type": "lfm2", "num_hidden_layers": 2, "full_attn_idxs": [0, 1]},
        {"model_type": "lfm2", "num_hidden_layers": 2},
        {"model_type": "minimax", "num_hidden_layers": 1},
        {"model_type": ["odd"], "layer_types": 5},
        {"layer_types": ["attention", "full_attention", "sliding_attention", "chunked_attention"]},
        {"model_type": "gemma3", "text_config": {"layer_types": ["sliding_attention"]}},
    ],
)
def test_attention_passes(config: dict[str, object]) -> None:
    check_rolls_back(config, "here")


@pytest.mark.parametrize("listed", [[], [1], [0, 1]])
def test_layers_of_lfm2_that_are_not_listed_are_those_of_transformers(listed: list[int]) -> None:
    given = {"num_hidden_layers": 2, "full_attn_idxs": listed}
    made = transformers.AutoConfig.for_model("lfm2", **given)
    with nullcontext() if set(made.layer_types) <= ROLLS_BACK else pytest.raises(DistillSpecError):
        check_rolls_back({"model_type": "lfm2", **given}, "here")


def test_a_model_whose_config_lists_no_layers_is_refused_where_some_keep_a_state() -> None:
    passed = []
    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            config = transformers.AutoConfig.for_model(kind, num_hidden_layers=2)
        except Exception:  # it wants other keys as well
            continue
        layers = getattr(config.get_text_config(decoder=True), "layer_types", None) or []
        if not set(layers) <= ROLLS_BACK:
            with suppress(DistillSpecError):
                check_rolls_back({"model_type": kind, "num_hidden_layers": 2}, "here")
                passed.append(kind)
    assert passed == []


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

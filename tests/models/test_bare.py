from __future__ import annotations

import copy

import pytest
from torch import nn
from transformers import PreTrainedModel

from distillspec.models.bare import bare_model, describe_model
from distillspec.models.surgery.adapters import add_lora
from distillspec.recipe.schema import AdapterConfig


def test_adapters_are_taken_off(llama: PreTrainedModel) -> None:
    model = copy.deepcopy(llama)
    wrapped = add_lora(model, AdapterConfig(rank=2, targets=("q_proj",)))
    assert bare_model(wrapped) is model
    assert bare_model(llama) is llama


def test_what_is_no_language_model_is_a_fault_of_ours() -> None:
    with pytest.raises(AssertionError, match="Linear"):
        bare_model(nn.Linear(2, 2))


def test_a_model_is_named_by_its_class_and_folder(llama: PreTrainedModel) -> None:
    model = copy.deepcopy(llama)
    model.name_or_path = ""
    assert describe_model(model) == "LlamaForCausalLM"
    model.name_or_path = "folder"
    assert describe_model(model) == "LlamaForCausalLM (folder)"

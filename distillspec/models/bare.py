"""The transformers model inside a peft wrapper."""

from __future__ import annotations

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel


def bare_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model that peft wraps, with its adapters in place, or `model` itself."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel), f"{type(inner).__name__} is no language model"
    return inner


def describe_model(model: nn.Module) -> str:
    """Class and path of the model, for error messages."""
    bare = bare_model(model)
    class_name = type(bare).__name__
    return f"{class_name} ({bare.name_or_path})" if bare.name_or_path else class_name

"""The transformers model itself, without what peft wraps around it."""

from __future__ import annotations

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel


def bare_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model itself: what peft wraps, with its adapters in place, else `model`."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel), f"{type(inner).__name__} is no language model"
    return inner


def named(model: nn.Module) -> str:
    """Which model it is, for errors."""
    bare = bare_model(model)
    kind = type(bare).__name__
    return f"{kind} ({bare.name_or_path})" if bare.name_or_path else kind

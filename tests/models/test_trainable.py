from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from distillspec.errors import DistillSpecError
from distillspec.models import trainable
from distillspec.models.adapters import add_lora
from distillspec.models.hidden import token_logits
from distillspec.models.trainable import (
    checkpoint_activations,
    compile_forward,
    freeze_embeddings,
    stacks,
    without_dropout,
)
from distillspec.recipe.schema import Lora
from tests.seq2seq import END, START, tiny_t5

from .conftest import tiny_model


def test_embeddings_are_frozen_with_the_head_that_shares_them() -> None:
    model = tiny_model("llama").requires_grad_(True)  # its head is its embeddings
    freeze_embeddings(model)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"model.embed_tokens.weight"}
    adapted = add_lora(tiny_model("llama"), Lora(rank=2))
    freeze_embeddings(adapted)
    assert any(p.requires_grad for p in adapted.parameters())


def test_a_draft_of_embeddings_alone_has_nothing_to_train() -> None:
    model = tiny_model("llama").requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    with pytest.raises(DistillSpecError, match="all that would be trained"):
        freeze_embeddings(model)


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_a_draft_is_trained_by_the_law_that_it_decodes_by(kind: str, text: torch.Tensor) -> None:
    """Both families have dropout in their configuration."""
    model = tiny_t5(layers=2) if kind == "t5" else tiny_model("gpt2")
    row = torch.tensor([[5, 9, 33, 7, END, START, 12, 40, 41, 6]]) if kind == "t5" else text
    expected = token_logits(model, row, None)
    rates = model.config.to_dict()
    model.train()
    assert not torch.equal(token_logits(model, row, None), expected)
    without_dropout(model)
    for _ in range(2):
        assert torch.equal(token_logits(model, row, None), expected)
    assert model.config.to_dict() == rates


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_layers_are_those_of_both_halves(kind: str) -> None:
    model = tiny_t5(layers=2) if kind == "t5" else tiny_model("llama")
    found = [type(layer).__name__ for part in stacks(model) for layer in part]
    assert found == (["T5Block"] * 4 if kind == "t5" else ["LlamaDecoderLayer"] * 2)


def test_activations_are_computed_again_in_training_only(text: torch.Tensor) -> None:
    model = tiny_model("llama").requires_grad_(True)
    calls = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    checkpoint_activations(model)
    model.train()
    model(input_ids=text, use_cache=False).logits.sum().backward()
    assert len(calls) == 2
    model.eval()
    model(input_ids=text)
    assert len(calls) == 3


def test_an_architecture_that_cannot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(DistillSpecError, match="cannot compute its activations again"):
        checkpoint_activations(model)


def test_a_missing_compiler_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "compiler_available", lambda: False)
    with pytest.raises(DistillSpecError, match=r"needs a C\+\+ compiler"):
        compile_forward(tiny_model("llama"))


def test_copies_of_a_compiled_draft_are_plain() -> None:
    model = tiny_model("llama")
    compile_forward(model)
    inner: nn.Module = copy.deepcopy(model).base_model
    assert model.base_model._compiled_call_impl is not None
    assert inner._compiled_call_impl is None

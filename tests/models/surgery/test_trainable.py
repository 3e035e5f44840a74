from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from distillspec.errors import DistillSpecError
from distillspec.models.surgery import trainable
from distillspec.models.surgery.adapters import add_lora
from distillspec.models.surgery.hidden_states import token_logits
from distillspec.models.surgery.trainable import (
    check_trains_as_it_decodes,
    checkpoint_activations,
    compile_forward,
    freeze_embeddings,
    layer_lists,
    train_mode,
    without_dropout,
)
from distillspec.recipe.schema import AdapterConfig
from tests.models.conftest import tiny_model
from tests.seq2seq import END, START, tiny_t5


def test_embeddings_are_frozen_with_the_head_that_shares_them() -> None:
    model = tiny_model("llama").requires_grad_(True)  # its head is its embeddings
    freeze_embeddings(model)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"model.embed_tokens.weight"}
    adapted = add_lora(tiny_model("llama"), AdapterConfig(rank=2))
    freeze_embeddings(adapted)
    assert any(p.requires_grad for p in adapted.parameters())


def test_a_draft_of_embeddings_alone_has_nothing_to_train() -> None:
    model = tiny_model("llama").requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    with pytest.raises(DistillSpecError, match="all that would be trained"):
        freeze_embeddings(model)


# By family: its configuration without the shape, with every rate that it has.
RANDOM: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_dropout": 0.3, "attention_dropout": 0.3},
    "biogpt": {"hidden_dropout_prob": 0.3, "layerdrop": 0.3, "activation_dropout": 0.3},
    "codegen": {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3, "rotary_dim": 8},
    "falcon": {"hidden_dropout": 0.3, "attention_dropout": 0.3, "num_kv_heads": 2},
    "gpt2": {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4,
                "attention_dropout": 0.3, "resid_dropout": 0.3, "embed_dropout": 0.3},
    "gpt_neox": {"hidden_dropout": 0.3, "attention_dropout": 0.3},
    "gptj": {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3, "rotary_dim": 8},
    "granite": {"attention_dropout": 0.3},
    "mixtral": {"router_jitter_noise": 0.3, "attention_dropout": 0.3, "num_local_experts": 4},
    "opt": {"dropout": 0.3, "attention_dropout": 0.3, "layerdrop": 0.3, "ffn_dim": 48,
            "word_embed_proj_dim": 32},
    "persimmon": {"hidden_dropout": 0.3, "attention_dropout": 0.3, "num_key_value_heads": 4},
    "phi": {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attention_dropout": 0.3},
    "phimoe": {"router_jitter_noise": 0.3, "input_jitter_noise": 0.3, "num_local_experts": 4,
               "attention_dropout": 0.3},
    "stablelm": {"hidden_dropout": 0.3, "attention_dropout": 0.3},
    "xglm": {"dropout": 0.3, "attention_dropout": 0.3, "activation_dropout": 0.3,
             "layerdrop": 0.3, "d_model": 32, "ffn_dim": 48, "num_layers": 2,
             "attention_heads": 4},
}  # fmt: skip


def family(kind: str) -> Any:
    """A tiny model with random weights, in evaluation mode."""
    if kind == "t5":
        return tiny_t5(layers=2, dropout_rate=0.3)
    shape = {
        "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    own = RANDOM[kind]
    if "d_model" in own or kind == "gpt_neo":
        shape = {name: shape[name] for name in shape if not name.startswith("num_")}
    if "d_model" in own:
        del shape["hidden_size"]
    config = AutoConfig.for_model(kind, **(shape | own))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():  # fresh weights give nearly equal logits
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(4.0)
    return model


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["t5", *RANDOM])
def test_a_draft_is_trained_by_the_distribution_that_it_decodes_by(
    kind: str, checkpointing: bool
) -> None:
    model = family(kind)
    row = torch.arange(3, 13)[None]
    if kind == "t5":
        row = torch.tensor([[5, 9, 33, 7, END, START, 12, 40, 41, 6]])
    expected = token_logits(model, row, None)
    rates = model.config.to_dict()
    model.train()
    assert not torch.equal(token_logits(model, row, None), expected)
    without_dropout(model)
    if checkpointing and model.supports_gradient_checkpointing:
        checkpoint_activations(model)
    train_mode(model)
    for _ in range(3):
        torch.testing.assert_close(token_logits(model, row, None), expected)
    check_trains_as_it_decodes(model)
    assert model.config.to_dict() == rates


def test_the_dropout_that_a_recipe_asks_of_lora_stays() -> None:
    model = add_lora(tiny_model("llama"), AdapterConfig(rank=2, dropout=0.5))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.ones_(parameter)
    row = torch.arange(3, 13)[None]
    check_trains_as_it_decodes(model)
    logits = [token_logits(model, row, None) for _ in range(2)]
    assert not torch.equal(*logits)


class AlwaysRandom(nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(hidden, 0.3)  # as remote code may, in every mode


def test_a_draft_whose_randomness_cannot_be_switched_off_is_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[0].mlp.act_fn = AlwaysRandom()
    with pytest.raises(DistillSpecError, match="LlamaForCausalLM differ"):
        check_trains_as_it_decodes(model)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_layers_are_those_of_both_halves(kind: str) -> None:
    model = tiny_t5(layers=2) if kind == "t5" else tiny_model("llama")
    layers = [type(layer).__name__ for part in layer_lists(model) for layer in part]
    assert layers == (["T5Block"] * 4 if kind == "t5" else ["LlamaDecoderLayer"] * 2)


def test_activations_are_computed_again_in_training_only(text: torch.Tensor) -> None:
    model = tiny_model("llama").requires_grad_(True)
    calls = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    checkpoint_activations(model)
    train_mode(model)
    model(input_ids=text, use_cache=False).logits.sum().backward()
    assert len(calls) == 2
    model.eval()
    model(input_ids=text)
    assert len(calls) == 3


def test_an_architecture_that_cannot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(DistillSpecError, match="cannot recompute its activations"):
        checkpoint_activations(model)


def test_a_missing_compiler_is_an_error_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "compiler_available", lambda: False)
    with pytest.raises(DistillSpecError, match=r"needs a C\+\+ compiler"):
        compile_forward(tiny_model("llama"))


def test_copies_of_a_compiled_draft_are_plain() -> None:
    model = tiny_model("llama")
    compile_forward(model)
    inner: nn.Module = copy.deepcopy(model).base_model
    assert model.base_model._compiled_call_impl is not None
    assert inner._compiled_call_impl is None


def test_a_draft_whose_logits_are_nan_is_not_trained() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    with pytest.raises(DistillSpecError, match="logits of the draft, LlamaForCausalLM are NaN"):
        check_trains_as_it_decodes(model)

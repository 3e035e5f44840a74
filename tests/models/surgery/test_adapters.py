from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.models.surgery.adapters import add_lora, merged
from distillspec.recipe.schema import AdapterConfig
from tests.models.conftest import one_pass, tiny_model


def train_a_little(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
            elif "magnitude" in name:
                parameter.mul_(1.5)


def test_only_the_adapters_train() -> None:
    adapted = add_lora(tiny_model("llama"), AdapterConfig(rank=2))
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)


def test_named_targets_are_the_only_ones_adapted() -> None:
    adapted = add_lora(tiny_model("llama"), AdapterConfig(rank=2, targets=("q_proj", "v_proj")))
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert {name.split(".self_attn.")[1].split(".")[0] for name in trainable} == {
        "q_proj",
        "v_proj",
    }


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize(
    ("kind", "targets"), [("llama", ("q_proj", "down_proj")), ("gpt2", ("c_attn", "c_proj"))]
)
def test_a_merged_model_is_plain_and_says_the_same(
    kind: str, targets: tuple[str, ...], use_dora: bool, text: Tensor
) -> None:
    plain = tiny_model(kind)
    before = one_pass(plain, text)
    torch.manual_seed(0)  # peft draws one of its two factors from the global generator
    adapted = add_lora(plain, AdapterConfig(rank=2, targets=targets, use_dora=use_dora))
    train_a_little(adapted)
    adapted.eval()
    expected = one_pass(adapted, text)
    whole = merged(adapted)
    assert type(whole) is type(plain)
    assert not any("lora" in name for name, _ in whole.named_parameters())
    assert whole.state_dict().keys() == tiny_model(kind).state_dict().keys()
    torch.testing.assert_close(one_pass(whole, text), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, before)


def test_merging_leaves_the_adapted_model_as_it_was(text: Tensor) -> None:
    adapted = add_lora(tiny_model("llama"), AdapterConfig(rank=2))
    train_a_little(adapted)
    adapted.eval()
    before = one_pass(adapted, text)
    merged(adapted)
    torch.testing.assert_close(one_pass(adapted, text), before)
    assert any("lora_A" in name for name, _ in adapted.named_parameters())


def test_a_model_without_adapters_is_returned_unchanged() -> None:
    model = tiny_model("llama")
    assert merged(model) is model


def test_dora_trains_the_size_of_each_row_apart() -> None:
    adapted = add_lora(
        tiny_model("llama"), AdapterConfig(rank=2, targets=("up_proj",), use_dora=True)
    )
    sizes = [p for name, p in adapted.named_parameters() if "magnitude" in name]
    assert [tuple(name_.shape) for name_ in sizes] == [(48,)] * 2
    assert all(name_.requires_grad for name_ in sizes)


@pytest.mark.parametrize("target", ["query", "mlp", "embed_tokens", "proj"])
def test_targets_that_match_no_linear_layer_are_an_error_that_lists_them(target: str) -> None:
    with pytest.raises(DistillSpecError, match=f"no linear layer .* called '{target}'") as caught:
        add_lora(tiny_model("llama"), AdapterConfig(targets=("q_proj", target)))
    assert "down_proj" in caught.value.fix
    with pytest.raises(DistillSpecError) as caught:
        add_lora(tiny_model("gpt2"), AdapterConfig(targets=("query",)))
    assert "are: c_attn, c_fc, c_proj; or" in caught.value.fix


def test_a_head_that_is_the_embedding_too_is_not_adapted_alone() -> None:
    with pytest.raises(DistillSpecError, match="one tensor with the draft's embedding"):
        add_lora(tiny_model("llama"), AdapterConfig(targets=("lm_head",)))
    untied = tiny_model("llama")
    untied.config.tie_word_embeddings = False
    untied.lm_head.weight = torch.nn.Parameter(untied.lm_head.weight.detach().clone())
    adapted = add_lora(untied, AdapterConfig(rank=2, targets=("lm_head",)))
    assert any("lm_head.lora_A" in name for name, _ in adapted.named_parameters())


def test_a_rank_that_no_layer_has_is_an_error_before_memory_is_asked_for() -> None:
    with pytest.raises(DistillSpecError, match="rank 4096") as caught:
        add_lora(tiny_model("llama"), AdapterConfig(rank=4096))
    assert caught.value.where == "lora.rank=4096"

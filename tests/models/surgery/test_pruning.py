from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from distillspec.errors import DistillSpecError
from distillspec.models.surgery.pruning import pruned
from distillspec.recipe.start import PrunedDraftConfig
from tests.models.conftest import VOCABULARY, one_pass, tiny_model

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gpt2", "gemma2")
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def model(kind: str) -> PreTrainedModel:
    """Three layers of 48 neurons (gpt2 and those of conftest: 2 layers)."""
    more = {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 8}
    config = {
        "qwen2": lambda: Qwen2Config(**_SHAPE, **more, max_window_layers=1),
        "qwen3": lambda: Qwen3Config(**_SHAPE, **more, head_dim=8, max_window_layers=1),
        "gpt_neox": lambda: GPTNeoXConfig(**_SHAPE),
    }
    if kind not in config:
        return tiny_model(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: PreTrainedModel = AutoModelForCausalLM.from_config(config[kind]())
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.mul_(6.0) if parameter.ndim == 2 else parameter.add_(0.1)
    return made.eval()


def plan(layers: Any, **cuts: int) -> PrunedDraftConfig:
    return PrunedDraftConfig(kind="pruned", layers=layers, **cuts)


def layers_of(target: PreTrainedModel) -> nn.ModuleList:
    backbone = target.base_model
    layers = getattr(backbone, "layers", None) or getattr(backbone, "h", None)
    assert isinstance(layers, nn.ModuleList)
    return layers


@pytest.mark.parametrize("kind", FAMILIES)
def test_all_layers_kept_are_the_target_itself(kind: str, text: Tensor) -> None:
    target = model(kind)
    draft = pruned(target, plan(len(layers_of(target))))
    assert type(draft) is type(target)
    assert not draft.training
    torch.testing.assert_close(one_pass(draft, text), one_pass(target, text), rtol=0, atol=0)
    weights = draft.state_dict()
    assert all(
        torch.equal(weights[name], draft_weight)
        for name, draft_weight in target.state_dict().items()
    )


@pytest.mark.parametrize("kind", FAMILIES)
def test_named_layers_are_the_target_without_the_others(kind: str, text: Tensor) -> None:
    """The others are made to add nothing to the residual stream."""
    target = model(kind)
    last = len(layers_of(target)) - 1
    draft = pruned(target, plan((last,)))
    with torch.no_grad():
        for layer in layers_of(target)[:last]:
            for name, parameter in layer.named_parameters():
                if any(end in name for end in ("o_proj", "down_proj", "dense", "c_proj")):
                    parameter.zero_()
    torch.testing.assert_close(one_pass(draft, text), one_pass(target, text))


def test_a_draft_owns_its_weights() -> None:
    target = model("llama")
    draft = pruned(target, plan(1))
    before = target.lm_head.weight.clone()
    with torch.no_grad():
        for parameter in draft.parameters():
            parameter.zero_()
    assert torch.equal(target.lm_head.weight, before)
    assert draft.lm_head.weight is draft.model.embed_tokens.weight  # tied, as the target's


def test_fields_with_an_entry_for_each_layer_follow_the_layers() -> None:
    target = model("qwen2")
    assert target.config.layer_types == ["full_attention", *["sliding_attention"] * 2]
    config = pruned(target, plan((0, 2))).config
    assert config.layer_types == ["full_attention", "sliding_attention"]
    assert (config.num_hidden_layers, config.max_window_layers) == (2, 1)
    assert pruned(target, plan((1, 2))).config.max_window_layers == 0


def _silence(target: PreTrainedModel, tails: Mapping[str, tuple[int, Tensor]]) -> None:
    """Zero these rows or columns, so that their units have no effect."""
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            for tail, (axis, units) in tails.items():
                if name.endswith(tail):
                    parameter.index_fill_(axis, units, 0.0)


@pytest.mark.parametrize(
    ("kind", "tails"),
    [
        ("llama", {"gate_proj.weight": 0, "up_proj.weight": 0, "down_proj.weight": 1}),
        ("qwen2", {"gate_proj.weight": 0, "up_proj.weight": 0, "down_proj.weight": 1}),
        (
            "gpt_neox",
            {"h_to_4h.weight": 0, "h_to_4h.bias": 0, "4h_to_h.weight": 1},
        ),
        ("gpt2", {"mlp.c_fc.weight": 1, "mlp.c_fc.bias": 0, "mlp.c_proj.weight": 0}),
    ],
)
def test_neurons_that_say_nothing_go_first(kind: str, tails: dict[str, int], text: Tensor) -> None:
    target = model(kind)
    silent = torch.tensor([0, 5, 17, 30])
    _silence(target, {tail: (axis, silent) for tail, axis in tails.items()})
    width = 128 if kind == "gpt2" else 48
    draft = pruned(target, plan(len(layers_of(target)), intermediate_size=width - 4))
    assert draft.num_parameters() < target.num_parameters()
    torch.testing.assert_close(one_pass(draft, text), one_pass(target, text), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3"])
def test_a_key_value_head_goes_with_the_queries_that_read_it(kind: str, text: Tensor) -> None:
    """Two key-value heads of 8, each read by two of four queries: the first is silent."""
    target = model(kind)
    queries, keys = torch.arange(16), torch.arange(8)
    _silence(
        target,
        {
            "q_proj.weight": (0, queries),
            "o_proj.weight": (1, queries),
            "k_proj.weight": (0, keys),
            "v_proj.weight": (0, keys),
        },
    )
    draft = pruned(target, plan(len(layers_of(target)), key_value_heads=1))
    config = draft.config
    assert (config.num_key_value_heads, config.num_attention_heads, config.head_dim) == (1, 2, 8)
    torch.testing.assert_close(one_pass(draft, text), one_pass(target, text), rtol=1e-4, atol=1e-4)


def test_channels_are_the_same_ones_everywhere() -> None:
    target = model("llama")
    loud = torch.tensor([*range(3, 11), *range(14, 22)])
    with torch.no_grad():
        target.model.embed_tokens.weight[:, loud] *= 100.0
    draft = pruned(target, plan((1,), hidden_size=16))
    assert (draft.config.hidden_size, draft.config.head_dim) == (16, 8)
    for name, axis in (("self_attn.q_proj", 1), ("self_attn.o_proj", 0), ("mlp.down_proj", 0)):
        ours = draft.get_parameter(f"model.layers.0.{name}.weight")
        target_weight = target.get_parameter(f"model.layers.1.{name}.weight")
        assert torch.equal(ours, target_weight.index_select(axis, loud))
    assert torch.equal(draft.model.norm.weight, target.model.norm.weight[loud])


def test_the_same_plan_gives_the_same_bits_and_leaves_random_numbers_alone() -> None:
    target = model("llama")
    before = torch.random.get_rng_state()
    first, two = (pruned(target, plan(1, intermediate_size=20)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], two[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt_neox", "gpt2", "gemma2"])
def test_plain_transformers_loads_what_was_cut(kind: str, text: Tensor, tmp_path: Path) -> None:
    cuts = {} if kind == "gemma2" else {"intermediate_size": 24}
    if kind in ("llama", "qwen3"):
        cuts |= {"key_value_heads": 1, "hidden_size": 24}
    draft = pruned(model(kind), plan((1,), **cuts))
    draft.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(one_pass(loaded, text), one_pass(draft, text), rtol=0, atol=0)


def refused(kind: str, asked: PrunedDraftConfig) -> DistillSpecError:
    with pytest.raises(DistillSpecError) as caught:
        pruned(model(kind), asked)
    return caught.value


def test_layers_that_are_not_there_are_named() -> None:
    assert refused("qwen3", plan((0, 3, 7))).what == (
        "there is no layer 3, 7 to keep: the target has 3"
    )


def test_widths_that_are_not_there_or_cannot_be_cut_are_refused() -> None:
    assert "the target has 48" in refused("llama", plan(1, intermediate_size=49)).what
    assert "the target has 2" in refused("llama", plan(1, key_value_heads=3)).what
    error = refused("qwen2", plan(1, key_value_heads=1))
    assert error.what == "key_value_heads of a qwen2 model cannot be cut"
    assert "llama, mistral, qwen3" in error.fix
    assert "gemma2" in refused("gemma2", plan(1, intermediate_size=8)).what


def test_a_shape_that_the_architecture_does_not_allow_is_refused() -> None:
    error = refused("llama", plan(1, hidden_size=30))
    assert error.what.startswith("this target cannot be pruned (LlamaForCausalLM)")

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from distillspec.models.loading.load import load_model
from distillspec.models.surgery.adapters import add_lora
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.schema import AdapterConfig, OptimizerConfig
from distillspec.training.optimizer import learning_rate, optimizers, rate_shares, share_done
from tests.seq2seq import tiny_t5


def test_only_matrices_are_decayed_and_only_trainable_weights_are_optimised() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    (optimizer,) = optimizers(model, OptimizerConfig(weight_decay=0.1))
    decayed, plain = optimizer.param_groups
    assert [p.shape for p in decayed["params"]] == [torch.Size([4, 3])]
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0
    assert {id(p) for p in plain["params"]} == {
        id(p) for p in (model[0].bias, model[1].weight, model[1].bias, model[2].bias)
    }


def test_lower_layers_go_by_smaller_rates(tiny_pair: Path) -> None:
    model = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    (optimizer,) = optimizers(model, OptimizerConfig(layer_decay=0.5, weight_decay=0.1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    shares: dict[str, set[float]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            part = next(
                (p for p in ("layers.0", "layers.1", "embed_tokens", "lm_head") if p in name),
                "norm",
            )
            shares.setdefault(part, set()).add(group["rate_share"])
    assert not names
    tied = model.config.tie_word_embeddings
    assert shares.pop("embed_tokens") == ({1.0} if tied else {0.125})
    assert shares.pop("norm") == {1.0}
    shares.pop("lm_head", None)
    assert shares == {"layers.0": {0.25}, "layers.1": {0.5}}


def test_embeddings_that_are_the_head_too_go_by_the_full_rate(tiny_pair: Path) -> None:
    model = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    model.lm_head.weight = model.model.embed_tokens.weight  # type: ignore[union-attr,assignment]
    assert id(model.get_input_embeddings().weight) not in rate_shares(model, 0.5)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.clone())  # type: ignore[union-attr,operator,assignment]
    assert rate_shares(model, 0.5)[id(model.get_input_embeddings().weight)] == 0.125


def test_muon_takes_the_hidden_matrices_and_leaves_the_vocabulary_to_adamw(tiny_pair: Path) -> None:
    model = load_model(str(tiny_pair / "draft"), dtype=torch.float32)
    muon, adamw = optimizers(
        model, OptimizerConfig(kind="muon", weight_decay=0.1, learning_rate=0.5)
    )
    assert isinstance(muon, torch.optim.Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden = [names[id(p)] for group in muon.param_groups for p in group["params"]]
    others = [names[id(p)] for group in adamw.param_groups for p in group["params"]]
    assert hidden
    assert all("proj" in name for name in hidden)
    assert all("embed" in name or "norm" in name or "lm_head" in name for name in others)
    assert sorted(hidden + others) == sorted(names.values())
    assert {g["lr"] for o in (muon, adamw) for g in o.param_groups} == {0.5}
    assert [g["weight_decay"] for g in adamw.param_groups] == [0.1, 0.0]


def test_muon_under_lora_has_nothing_left_for_adamw(tiny_pair: Path) -> None:
    model = load_model(str(tiny_pair / "draft"), dtype=torch.float32)
    (muon,) = optimizers(add_lora(model, AdapterConfig()), OptimizerConfig(kind="muon"))
    assert isinstance(muon, torch.optim.Muon)


def test_the_rate_rises_linearly_then_follows_a_cosine_to_the_final_share() -> None:
    plan = OptimizerConfig(learning_rate=1.0, warmup_steps=4, final_rate_share=0.2)
    assert [learning_rate(step, 0.0, plan) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate(9, 0.5, plan) == pytest.approx(0.6)
    assert learning_rate(9, 1.0, plan) == pytest.approx(0.2)


def test_without_warm_up_the_first_rate_is_the_peak() -> None:
    assert learning_rate(0, 0.0, OptimizerConfig(learning_rate=1.0, warmup_steps=0)) == 1.0


def test_the_share_done_is_by_steps_or_by_time_whichever_is_further() -> None:
    by_steps = DistillConfig(max_steps=10)
    assert share_done(5, 1e9, by_steps) == 0.5
    both = DistillConfig(max_steps=10, max_minutes=1.0)
    assert share_done(1, 30.0, both) == 0.5
    assert share_done(9, 30.0, both) == 0.9
    assert share_done(1, 61.0, both) == 1.0


def test_an_encoder_lies_below_its_decoder_and_position_biases_belong_to_their_layer() -> None:
    model = tiny_t5(layers=2)
    shares = rate_shares(model, 0.5)
    for stack, below in ((model.encoder, 4), (model.decoder, 2)):
        for place, block in enumerate(stack.block):
            found = {shares[id(parameter)] for parameter in block.parameters()}
            assert found == {0.5 ** (below - place)}
    assert id(model.shared.weight) not in shares  # the head is the same tensor
    own_head = tiny_t5(layers=2, tied=False)
    assert rate_shares(own_head, 0.5)[id(own_head.shared.weight)] == 0.5**5

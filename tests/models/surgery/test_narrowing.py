from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from distillspec.errors import DistillSpecError
from distillspec.models.surgery.narrowing import narrowed, principal_directions
from distillspec.recipe.start import PrunedDraftConfig
from tests.models.conftest import VOCABULARY, one_pass, tiny_model


def plan(layers: Any, hidden_size: int, **cuts: int) -> PrunedDraftConfig:
    return PrunedDraftConfig(
        kind="pruned", layers=layers, hidden_size=hidden_size, channels="principal", **cuts
    )


def model(kind: str) -> PreTrainedModel:
    """A model whose norms have unequal gains; a tied one has equal gains in its last norm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = tiny_model(kind) if kind != "qwen3" else _qwen3()
        with torch.no_grad():
            for name, weight in made.named_parameters():
                if name.endswith("norm.weight"):
                    weight.copy_(0.5 + torch.rand_like(weight))
            if made.config.tie_word_embeddings:
                made.model.norm.weight.fill_(1.7)
    return made


def _qwen3() -> PreTrainedModel:
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return made.eval()


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3"])
def test_all_directions_are_a_rotation_that_changes_nothing(kind: str, text: Tensor) -> None:
    target = model(kind)
    draft = narrowed(target, plan(2, target.config.hidden_size))
    torch.testing.assert_close(one_pass(draft, text), one_pass(target, text), rtol=1e-4, atol=1e-4)
    embedding, rotated = (m.get_input_embeddings().weight for m in (target, draft))
    assert not torch.allclose(embedding, rotated, atol=0.01)


def test_states_in_few_dimensions_survive_the_cut(text: Tensor) -> None:
    """All matrices that write hidden states write into one subspace, which is found."""
    target = model("llama")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        basis = torch.linalg.qr(torch.randn(32, 8)).Q
        for name, weight in target.named_parameters():
            if name.endswith("embed_tokens.weight"):
                weight.copy_(weight @ basis @ basis.T)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.copy_(basis @ basis.T @ weight)
    # 8 of 32 dimensions: the norms, whose epsilon differs then, do the rest.
    draft = narrowed(target, plan(2, 8))
    assert draft.config.hidden_size == 8
    torch.testing.assert_close(one_pass(draft, text), one_pass(target, text), rtol=0.01, atol=0.01)


def test_the_last_gains_of_a_tied_head_are_the_diagonal_of_the_rotated_ones() -> None:
    target = model("llama")
    gains = torch.linspace(0.5, 2.0, 32)
    with torch.no_grad():
        target.model.norm.weight.copy_(gains)
    draft = narrowed(target, plan(1, 8))
    directions = principal_directions(target.model.embed_tokens.weight.detach(), 8)
    expected = math.sqrt(32 / 8) * (directions.T @ torch.diag(gains.double()) @ directions).diag()
    torch.testing.assert_close(draft.model.norm.weight.detach().double(), expected.detach())
    assert draft.lm_head.weight is draft.model.embed_tokens.weight


def test_other_cuts_come_first() -> None:
    draft = narrowed(model("mistral"), plan((1,), 8, intermediate_size=24, key_value_heads=1))
    config = draft.config
    sizes = config.num_hidden_layers, config.intermediate_size, config.num_key_value_heads
    assert sizes == (1, 24, 1)
    assert draft.model.layers[0].mlp.down_proj.weight.shape == (8, 24)


def test_the_same_target_gives_the_same_bits() -> None:
    first, second = (narrowed(model("llama"), plan(1, 8)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [("gpt2", 8, "cannot be cut"), ("gemma2", 8, "cannot be cut"), ("llama", 64, "has 32")],
)
def test_a_shape_that_fits_no_family_is_an_error(kind: str, size: int, message: str) -> None:
    with pytest.raises(DistillSpecError, match=message) as caught:
        narrowed(tiny_model(kind), plan(1, size))
    assert caught.value.where == "pair.draft.hidden_size"


def test_a_width_that_the_heads_do_not_divide_is_an_error() -> None:
    with pytest.raises(DistillSpecError, match=r"hidden size \(10\) is not a multiple of .* \(4\)"):
        narrowed(tiny_model("llama"), plan(1, 10))
    assert narrowed(tiny_model("llama"), plan(1, 10, key_value_heads=1)).config.hidden_size == 10


def test_directions_are_orthonormal_and_hold_the_most_of_the_embeddings() -> None:
    torch.manual_seed(2)
    embedding = torch.randn(100, 12) * torch.linspace(3.0, 0.1, 12)
    directions = principal_directions(embedding, 4)
    torch.testing.assert_close(directions.T @ directions, torch.eye(4, dtype=torch.float64))
    kept = (embedding.double() @ directions).square().sum()
    singular = torch.linalg.svdvals(embedding.double())
    torch.testing.assert_close(kept, singular[:4].square().sum())

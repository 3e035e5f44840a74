from __future__ import annotations

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.models.surgery import random_llama as build_llama
from distillspec.models.surgery.random_llama import random_llama
from distillspec.recipe.start import LlamaShape

SHAPE = LlamaShape(
    hidden_size=16, intermediate_size=32, layers=2, heads=4, key_value_heads=2, max_positions=64
)


def test_the_shape_is_the_one_asked_for() -> None:
    model = random_llama(SHAPE, vocab_size=40, end_token=3, seed=0)
    config = model.config
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (40, 16, 32)
    assert (config.num_hidden_layers, config.num_attention_heads) == (2, 4)
    assert (config.num_key_value_heads, config.max_position_embeddings) == (2, 64)
    assert (config.bos_token_id, config.eos_token_id) == (3, 3)
    assert config._attn_implementation == "sdpa"
    assert model.dtype == torch.float32
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 40)


def test_key_value_heads_default_to_heads() -> None:
    shape = SHAPE.model_copy(update={"key_value_heads": None})
    model = random_llama(shape, vocab_size=40, end_token=0, seed=0)
    assert model.config.num_key_value_heads == 4


def test_input_and_output_embeddings_are_one_tensor() -> None:
    model = random_llama(SHAPE, vocab_size=40, end_token=0, seed=0)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, second = (
        random_llama(SHAPE, vocab_size=40, end_token=0, seed=seed).state_dict()
        for seed in (7, 7, 8)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], second["lm_head.weight"])


def test_the_callers_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    random_llama(SHAPE, vocab_size=40, end_token=0, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_shape_beyond_the_memory_is_the_users_error() -> None:
    huge = LlamaShape(hidden_size=10**6, intermediate_size=10**6, layers=8, heads=2)
    with pytest.raises(DistillSpecError, match="GiB of memory"):
        random_llama(huge, vocab_size=300, end_token=0, seed=0)


def test_memory_that_cannot_be_had_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # More than any kernel allocates, on every machine.
    monkeypatch.setattr(build_llama, "check_memory", lambda *_: None)
    huge = LlamaShape(hidden_size=2**20, intermediate_size=2**20, layers=1, heads=2)
    with pytest.raises(DistillSpecError, match="not enough free memory"):
        random_llama(huge, vocab_size=2**28, end_token=0, seed=0)

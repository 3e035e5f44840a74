from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import CohereConfig, CohereForCausalLM, GraniteConfig, GraniteForCausalLM

from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model
from distillspec.models.runners.compiled import make_runner
from distillspec.models.surgery.adapters import add_lora
from distillspec.models.surgery.hidden_states import (
    hidden_states,
    left_padded_positions,
    output_head,
    token_logits,
)
from distillspec.models.vocabulary.cross_tokenizer import attach_token_map
from distillspec.recipe.schema import AdapterConfig
from tests.models.conftest import VOCABULARY, one_pass, tiny_model
from tests.models.two_tokenizers import wide_bridge

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "gpt2"])
def test_head_of_hidden_states_is_the_models_own_logits(kind: str, text: Tensor) -> None:
    model = tiny_model(kind)
    head = output_head(model)
    assert head is not None
    logits = head.logits(hidden_states(model, text, None)[0])
    torch.testing.assert_close(logits, one_pass(model, text)[0], atol=1e-4, rtol=1e-4)


def test_scales_of_cohere_and_granite_are_in_the_head(text: Tensor) -> None:
    for model in (
        CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.25)).eval(),
        GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=8.0)).eval(),
    ):
        head = output_head(model)
        assert head is not None
        assert head.scale != 1.0
        logits = head.logits(hidden_states(model, text, None)[0])
        torch.testing.assert_close(logits, one_pass(model, text)[0], atol=1e-5, rtol=1e-4)


def test_a_model_that_does_more_after_its_head_has_none(text: Tensor) -> None:
    class Shifted(type(tiny_model("llama"))):  # type: ignore[misc]
        def forward(self, *args: object, **kwargs: object) -> object:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits + torch.arange(VOCABULARY)
            return output

    model = tiny_model("llama")
    model.__class__ = Shifted
    assert output_head(model) is None
    torch.testing.assert_close(token_logits(model, text, None), one_pass(model, text))


def test_the_head_is_the_live_parameter_and_trains(text: Tensor) -> None:
    model = tiny_model("llama")
    head = output_head(model)
    assert head is not None
    head.logits(hidden_states(model, text, None)[0]).sum().backward()
    assert model.get_output_embeddings().weight.grad is not None


def test_head_and_logits_are_trimmed_alike(text: Tensor) -> None:
    model = tiny_model("llama")
    head = output_head(model, 50)
    assert head is not None
    logits = head.logits(hidden_states(model, text, None)[0])
    torch.testing.assert_close(logits, token_logits(model, text, None, 50)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_at_tokens(kind: str, side: str, text: Tensor) -> None:
    model = tiny_model(kind)
    pad = torch.zeros(1, 6, dtype=torch.long)
    parts = (pad, text) if side == "left" else (text, pad)
    tokens = torch.cat(parts, dim=1)
    is_token = torch.cat([part.bool() for part in parts], dim=1)
    padded = hidden_states(model, tokens, is_token)[is_token]
    plain = hidden_states(model, text, None)[0]
    torch.testing.assert_close(padded, plain, atol=1e-4, rtol=1e-4)


def test_left_padded_rows_count_from_their_first_token() -> None:
    is_token = torch.tensor([[False, False, True, True], [True, True, True, True]])
    assert left_padded_positions(is_token).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


def test_an_adapted_model_shows_its_adapters(text: Tensor) -> None:
    plain = tiny_model("llama")
    expected = hidden_states(plain, text, None)
    adapted = add_lora(plain, AdapterConfig(rank=2))
    assert bare_model(adapted) is plain
    torch.testing.assert_close(hidden_states(adapted, text, None), expected)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    assert not torch.allclose(hidden_states(adapted, text, None), expected)
    assert output_head(adapted) is not None


def test_a_draft_of_another_tokenizer_is_read_at_the_ends_of_the_targets_tokens() -> None:
    """Its logits over the target's tokens are those of a cache that is fed token by token."""
    model, token_map = tiny_model("llama"), wide_bridge()
    text = torch.tensor([[1, 3, 4, 6, 2], [9, 10, 11, 12, 0]])
    attach_token_map(model, token_map)
    row_logits = token_logits(model, text, None)
    states = hidden_states(model, text, None)
    assert states.shape == (2, 5, 32)
    head = output_head(model)
    assert head is not None
    torch.testing.assert_close(token_map.logits(head.logits(states)), row_logits)
    for row, logits in zip(text, row_logits, strict=True):
        runner = make_runner(model, "eager", 64, ())
        torch.testing.assert_close(runner.feed(row[None])[0], logits, rtol=1e-4, atol=1e-4)


def test_padding_of_a_draft_of_another_tokenizer_is_not_read() -> None:
    """Each pad would be two pieces, and the row too long for the context."""
    model = tiny_model("llama")
    attach_token_map(model, wide_bridge())
    text = torch.tensor([[1, 3, 4, 6, 2]])
    tokens = torch.cat([text, torch.full((1, 95), 4)], dim=1)
    is_token = torch.arange(100)[None] < 5
    for read in (hidden_states, token_logits):
        padded_states = read(model, tokens, is_token)
        torch.testing.assert_close(
            padded_states[:, :5], read(model, text, None), rtol=1e-4, atol=1e-4
        )


def test_a_row_longer_than_the_drafts_context_in_its_own_tokens_is_refused() -> None:
    model = tiny_model("llama")
    attach_token_map(model, wide_bridge())
    with pytest.raises(DistillSpecError, match="its context holds 128"):
        hidden_states(model, torch.full((1, 100), 4), None)

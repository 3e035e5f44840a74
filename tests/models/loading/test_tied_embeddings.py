from __future__ import annotations

import pytest
import torch
from torch import nn

from distillspec.models.loading.tied_embeddings import is_tied, state_tying, tied_as_it_is
from distillspec.models.vocabulary.trimmed_head import trim_head
from tests.models.conftest import tiny_model
from tests.seq2seq import tiny_t5


def untie(model: nn.Module) -> None:
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(torch.randn_like(head.weight))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_configuration_follows_the_weights(kind: str) -> None:
    model = tiny_model(kind)
    assert is_tied(model)
    assert not state_tying(model)
    untie(model)
    assert state_tying(model)
    assert model.config.tie_word_embeddings is False
    assert not state_tying(model)  # it is true already


def test_two_names_of_one_matrix_are_stated_as_such() -> None:
    model = tiny_model("mistral")
    model.lm_head.weight = model.model.embed_tokens.weight
    assert not state_tying(model)  # the configuration asked for more, not for less
    assert model.config.tie_word_embeddings is True


def test_a_trimmed_head_is_tied_as_the_whole_one_is() -> None:
    model = tiny_model("llama")
    trim_head(model, range(7))
    assert is_tied(model)
    untie_whole = model.get_output_embeddings().whole
    untie_whole.weight = nn.Parameter(torch.zeros_like(untie_whole.weight))
    assert not is_tied(model)


def test_an_encoder_decoder_model_keeps_its_flag() -> None:
    model = tiny_t5()
    untie(model)
    assert not state_tying(model)
    assert model.config.tie_word_embeddings is True
    with tied_as_it_is(model):
        assert model.config.tie_word_embeddings is False
    assert model.config.tie_word_embeddings is True

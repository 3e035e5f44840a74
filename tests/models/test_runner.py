from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.models.runner import CausalRunner, most_positions, vocabulary_size

from .conftest import VOCABULARY, one_pass, tiny_model

KINDS = ["llama", "mistral", "gemma2", "gpt2"]


@pytest.mark.parametrize("kind", KINDS)
def test_feeding_in_pieces_equals_feeding_at_once(kind: str, text: Tensor) -> None:
    model = tiny_model(kind)
    runner = CausalRunner(model)
    pieces = [runner.feed(piece) for piece in text.split([7, 1, 5, 1, 20, 14], dim=1)]
    torch.testing.assert_close(
        torch.cat(pieces, dim=1), one_pass(model, text), atol=1e-4, rtol=1e-4
    )
    assert runner.length == text.shape[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_rolled_back_leaves_no_trace(kind: str, text: Tensor) -> None:
    model = tiny_model(kind)
    runner = CausalRunner(model)
    runner.feed(text[:, :30])
    runner.feed(text.flip(1)[:, :9])
    runner.rollback(21)  # beyond the window of 8 positions
    again = runner.feed(text[:, 21:])
    torch.testing.assert_close(again, one_pass(model, text)[:, 21:], atol=1e-4, rtol=1e-4)


def test_reset_begins_a_new_text(llama: PreTrainedModel, text: Tensor) -> None:
    runner = CausalRunner(llama)
    runner.feed(text)
    runner.reset()
    assert runner.length == 0
    torch.testing.assert_close(runner.feed(text), one_pass(llama, text), atol=1e-4, rtol=1e-4)


def test_rows_of_a_batch_are_independent(llama: PreTrainedModel, text: Tensor) -> None:
    both = torch.cat((text, text.flip(1)))
    runner = CausalRunner(llama, rows=2)
    logits = torch.cat((runner.feed(both[:, :40]), runner.feed(both[:, 40:])), dim=1)
    torch.testing.assert_close(logits[1:], one_pass(llama, text.flip(1)), atol=1e-4, rtol=1e-4)


def test_logits_are_trimmed_to_the_vocabulary_asked_for(
    llama: PreTrainedModel, text: Tensor
) -> None:
    runner = CausalRunner(llama, vocabulary=50)
    assert runner.feed(text).shape == (1, 48, 50)
    assert runner.vocabulary == 50
    assert CausalRunner(llama).vocabulary == vocabulary_size(llama) == VOCABULARY


def test_capacity_is_what_the_model_can_read(llama: PreTrainedModel) -> None:
    assert CausalRunner(llama).capacity == most_positions(llama) == 128


def test_a_model_in_training_mode_is_refused() -> None:
    model = tiny_model("llama").train()
    with pytest.raises(AssertionError, match="eval mode"):
        CausalRunner(model)

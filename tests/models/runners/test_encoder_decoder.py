from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model
from distillspec.models.runners.encoder_decoder import (
    check_same_kind,
    row_logits,
    start_token,
)
from distillspec.models.surgery.hidden_states import hidden_states, output_head, token_logits
from distillspec.models.vocabulary.trimmed_head import settle_head, trim_head
from tests.models.conftest import tiny_model
from tests.seq2seq import END, START, tiny_t5

SOURCE = [5, 9, 33, 7, END]
RESPONSE = [12, 40, 41, 6, 300]
ROW = [*SOURCE, START, *RESPONSE]


def own_logits(model: PreTrainedModel, row: Sequence[int]) -> Tensor:
    """transformers' logits for the response of one unpadded row: [R, V], start token first."""
    start = list(row).index(START)
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor([list(row[:start])]),
            decoder_input_ids=torch.tensor([list(row[start:])]),
            use_cache=False,
        )
    logits: Tensor = output.logits
    return logits[0]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_padded_on_either_side_read_as_they_do_alone(tied: bool) -> None:
    model = tiny_t5(layers=2, tied=tied)
    rows = [ROW, [8, END, START, 20], [4, 3, 21, END, START, 7, 7]]
    longest = len(ROW)
    right = torch.tensor([row + [START] * (longest - len(row)) for row in rows])
    left = torch.tensor([[START] * (longest - len(row)) + row for row in rows])
    is_token = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    head = output_head(model)
    assert head is not None, "the loss can go through hidden states"
    with torch.no_grad():
        by_side = {
            "right": (token_logits(model, right, None), hidden_states(model, right, None)),
            "left": (token_logits(model, left, is_token), hidden_states(model, left, is_token)),
        }
    for number, row in enumerate(rows):
        expected, start = own_logits(model, row), row.index(START)
        for side, (logits, states) in by_side.items():
            shift = longest - len(row) if side == "left" else 0
            response = slice(shift + start, shift + len(row))
            close(logits[number, response], expected)
            close(head.logits(states[number, response]), expected)


def test_gradients_through_states_and_head_are_those_of_the_models_own_logits() -> None:
    gradients = []
    for through_head in (True, False):
        model = tiny_t5(layers=2)
        tokens = torch.tensor([ROW])
        if through_head:
            head = output_head(model)
            assert head is not None
            logits = head.logits(hidden_states(model, tokens, None)[0, len(SOURCE) : -1])
        else:
            logits = model(
                input_ids=tokens[:, : len(SOURCE)],
                decoder_input_ids=tokens[:, len(SOURCE) : -1],
            ).logits[0]
        torch.nn.functional.cross_entropy(logits, torch.tensor(RESPONSE)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[1].items():
        assert gradient is not None and gradients[0][name] is not None, name
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_row_without_a_start_or_without_a_source_is_refused() -> None:
    model = tiny_t5()
    with pytest.raises(AssertionError, match="no start token"):
        row_logits(model, model, torch.tensor([ROW, [5] * len(ROW)]), None)
    with pytest.raises(AssertionError, match="no source"):
        row_logits(model, model, torch.tensor([[START, 5, 6]]), None)


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_gives_back_the_same_distribution_whether_the_head_is_the_embedding_or_its_own(
    tied: bool, tmp_path: Path
) -> None:
    model = tiny_t5(layers=2, tied=tied)
    with torch.no_grad():
        model.shared.weight[7].mul_(3.0)  # seen in the head of the one kind alone
    model.save_pretrained(tmp_path)
    again = load_model(str(tmp_path), dtype=torch.float32)
    close(own_logits(again, ROW), own_logits(model, ROW))
    head = output_head(again)
    assert head is not None
    is_shared = head.weight.data_ptr() == again.get_input_embeddings().weight.data_ptr()
    assert is_shared == tied


def test_a_trimmed_head_rules_the_others_out() -> None:
    model = tiny_t5()
    whole = own_logits(model, ROW)
    kept = [0, 1, 5, 12, 40]
    trim_head(model, kept)
    settle_head(model)
    head = output_head(model)
    assert head is not None
    with torch.no_grad():
        states = hidden_states(model, torch.tensor([ROW]), None)[0, len(SOURCE) :]
        for logits in (own_logits(model, ROW), head.logits(states)):
            close(logits[:, kept], whole[:, kept])
            ruled_out = [token for token in range(whole.shape[1]) if token not in kept]
            assert (logits[:, ruled_out] == -torch.inf).all()


def test_a_start_that_is_missing_or_ends_texts_too_is_refused() -> None:
    model = tiny_t5()
    model.generation_config.decoder_start_token_id = None
    model.config.decoder_start_token_id = None
    with pytest.raises(DistillSpecError, match="decoder_start_token_id"):
        start_token(model)
    bart = BartForConditionalGeneration(
        BartConfig(vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1,
                   encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=8,
                   decoder_ffn_dim=8, max_position_embeddings=16)
    )  # fmt: skip
    with pytest.raises(DistillSpecError, match="end-of-text token"):
        start_token(bart)


def test_a_pair_has_two_models_of_one_kind_that_begin_alike() -> None:
    assert check_same_kind(tiny_t5(seed=1), tiny_t5(seed=2), "here")
    assert not check_same_kind(tiny_model("llama"), tiny_model("gpt2"), "here")
    with pytest.raises(DistillSpecError, match="target is an encoder-decoder.*draft is a causal"):
        check_same_kind(tiny_t5(), tiny_model("llama"), "here")
    other_start = tiny_t5()
    other_start.generation_config.decoder_start_token_id = 7
    with pytest.raises(DistillSpecError, match="token 0, the draft's with 7"):
        check_same_kind(tiny_t5(), other_start, "here")

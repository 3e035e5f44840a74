from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, MambaConfig, PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.runners.cache import (
    GrowingCache,
    additive_mask,
    check_rolls_back,
    is_plainly_causal,
)
from tests.models.conftest import one_pass, tiny_model


def test_growing_keeps_what_is_held() -> None:
    cache = GrowingCache()
    states = torch.randn(2, 3, 1000, 4)
    for piece in states.split(90, dim=2):
        keys, values = cache.update(piece, piece + 1, 0)
    assert torch.equal(keys, states)
    assert torch.equal(values, states + 1)


def test_buffers_stay_in_place_while_there_is_room() -> None:
    cache = GrowingCache()
    cache.update(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2), 0)
    cache.reserve(50)
    before = cache.layers[0].buffers[0].data_ptr()
    cache.update(torch.ones(1, 1, 40, 2), torch.ones(1, 1, 40, 2), 0)
    cache.keep(7)
    assert cache.layers[0].buffers[0].data_ptr() == before
    assert cache.get_seq_length() == 7


def test_rows_that_are_kept_go_on_as_if_alone(llama: PreTrainedModel, text: Tensor) -> None:
    rows = torch.cat((text, text.flip(1), text.roll(5, 1)))
    cache = GrowingCache()
    with torch.no_grad():
        llama(input_ids=rows[:, :40], past_key_values=cache, use_cache=True)
        cache.keep_rows(torch.tensor([0, 2]))
        logits = llama(input_ids=rows[[0, 2], 40:], past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(logits[1:], one_pass(llama, rows[2:])[:, 40:], atol=1e-4, rtol=1e-4)


def test_only_models_with_one_mask_for_all_layers_take_a_ready_one() -> None:
    assert is_plainly_causal(tiny_model("llama"))
    assert not is_plainly_causal(tiny_model("mistral"))
    assert not is_plainly_causal(tiny_model("gemma2"))


def test_an_additive_mask_is_zero_where_positions_are_visible() -> None:
    mask = additive_mask(torch.tensor([True, False]), torch.bfloat16)
    assert mask.tolist() == [0.0, torch.finfo(torch.bfloat16).min]


def test_a_model_with_a_running_state_is_refused() -> None:
    config = MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, state_size=2)
    with pytest.raises(DistillSpecError, match="cannot be rolled back"):
        check_rolls_back(AutoModelForCausalLM.from_config(config))

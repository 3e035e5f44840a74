from __future__ import annotations

import torch
from torch import Tensor, nn

from distillspec.models.surgery.frozen_target import FrozenTarget
from tests.models.conftest import one_pass, tiny_model


def test_a_module_that_holds_one_neither_lists_nor_saves_it() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.target = FrozenTarget(tiny_model("llama"))

    holder = Holder()
    assert list(holder.parameters()) == []
    assert holder.state_dict() == {}


def test_it_scores_text_without_gradients(text: Tensor) -> None:
    target = FrozenTarget(tiny_model("llama").train())
    assert not target.model.training
    assert not any(parameter.requires_grad for parameter in target.model.parameters())
    hidden, head = target.hidden(text, None), target.head
    assert head is not None
    assert not hidden.requires_grad
    expected = one_pass(target.model, text)
    torch.testing.assert_close(head.logits(hidden), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(target.logits(text, None), expected)


def test_head_and_logits_are_trimmed_to_the_shared_vocabulary(text: Tensor) -> None:
    target = FrozenTarget(tiny_model("llama"), vocab_size=50)
    assert target.head is not None
    assert target.head.weight.shape == (50, 32)
    assert target.logits(text, None).shape == (1, 48, 50)


def test_moving_it_returns_it() -> None:
    target = FrozenTarget(tiny_model("llama"))
    assert target.to("cpu") is target


def test_a_released_target_holds_no_memory() -> None:
    target = FrozenTarget(tiny_model("llama"))
    target.release()
    assert all(parameter.is_meta for parameter in target.model.parameters())
    assert all(buffer.is_meta for buffer in target.model.buffers())

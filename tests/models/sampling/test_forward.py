from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distillspec.models.runners.cache import GrowingCache, additive_mask
from distillspec.models.sampling.forward import Forward, forward_of, read_prompts
from distillspec.models.surgery.hidden_states import hidden_states
from tests.models.conftest import VOCABULARY, one_pass, tiny_model
from tests.models.sampling.test_generate import prompts_of


def test_logits_and_states_go_on_from_the_cache() -> None:
    model = tiny_model("llama")
    (text,) = prompts_of([12])
    with torch.no_grad(), forward_of(model) as forward:
        for read in (forward.logits, forward.states, forward):
            cache = GrowingCache()
            forward(text[None, :7], cache, None, None)
            actual = read(text[None, 7:], cache, None, None)
            if read == forward.states:
                expected = hidden_states(model, text[None], None)[:, 7:]
            else:
                expected = one_pass(model, text[None])[:, 7:]
            torch.testing.assert_close(actual, expected if actual.ndim == 3 else expected[:, -1])


@pytest.mark.parametrize("tokens_at_once", [2048, 12])
@pytest.mark.parametrize("lengths", [[0, 3, 3, 5, 9], [4, 4], [0, 0]])
def test_prompts_are_read_to_the_right_end_of_the_cache(
    lengths: list[int], tokens_at_once: int
) -> None:
    model = tiny_model("llama")
    texts, following = prompts_of(lengths), prompts_of([1] * len(lengths))
    with torch.no_grad(), forward_of(model) as forward:
        logits = continued(forward._replace(tokens_at_once=tokens_at_once), texts, following)
    for row, (text, token) in enumerate(zip(texts, following, strict=True)):
        expected = one_pass(model, torch.cat([text, token])[None])[0, -1]
        torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-4)


def continued(forward: Forward, texts: list[Tensor], following: list[Tensor]) -> Tensor:
    """Logits [B, V] after each text and one more token."""
    cache = read_prompts(forward, texts, 4)
    longest = len(texts[-1])
    assert cache.get_seq_length() == longest
    lengths = torch.tensor([len(text) for text in texts])[:, None]
    visible = torch.arange(longest + 1) >= longest - lengths
    mask = additive_mask(visible, torch.float32)[:, None, None]
    return forward(torch.stack(following), cache, mask, lengths)


class LargestInput(TorchDispatchMode):
    """Records the most elements that an input of a batched product had."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default:
            self.elements = max(self.elements, *(operand.numel() for operand in args))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_reading_prompts_does_not_copy_a_frozen_head_for_every_row(
    precision: torch.dtype | None,
) -> None:
    model = tiny_model("llama").requires_grad_(False)
    head = model.get_output_embeddings().weight.numel()
    with (
        torch.no_grad(),
        torch.autocast("cpu", precision, enabled=precision is not None),
        forward_of(model) as forward,
        LargestInput() as largest,
    ):
        logits = forward(torch.stack(prompts_of([6] * 8)), GrowingCache(), None, None)
    assert logits.shape == (8, VOCABULARY)
    assert largest.elements < 2 * head


def test_weights_that_were_cast_give_logits_of_that_precision() -> None:
    model = tiny_model("llama").train()
    (text,) = prompts_of([6])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), forward_of(model) as forward:
        logits = forward(text[None], GrowingCache(), None, None)
        assert not model.training
    assert logits.dtype == torch.bfloat16
    assert logits.shape == (1, VOCABULARY)
    assert model.training

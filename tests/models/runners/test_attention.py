from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from distillspec.models.runners.attention import (
    _attend,
    _attend_whole,
    fast_single_queries,
    fast_whole_rows,
)
from distillspec.models.surgery.random_llama import random_llama
from distillspec.recipe.start import LlamaShape
from tests.models.conftest import one_pass, tiny_model


class Attention(torch.nn.Module):
    """What attention reads of the layer that calls it: 4 query heads, 2 stored ones."""

    num_key_value_groups = 2
    is_causal = True


def exact(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(dim)) v over the visible keys, head by head: [B, 1, heads, dim]."""
    rows = []
    for head in range(query.shape[1]):
        scores = (query[:, head] * key[:, head // 2]).sum(-1) * query.shape[-1] ** -0.5
        weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
        rows.append((weights[..., None] * value[:, head // 2]).sum(1))
    return torch.stack(rows, dim=1)[:, None]


@pytest.mark.parametrize("kind", ["none", "bool", "additive"])
def test_one_query_attends_to_the_visible_keys(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, 1, 8, generator=generator)
    key, value = (torch.randn(3, 2, 20, 8, generator=generator) for _ in range(2))
    visible = torch.ones(3, 20, dtype=torch.bool)
    mask = None
    if kind != "none":
        visible[1, :7] = False
        mask = visible[:, None, None]
    if kind == "additive":
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)  # type: ignore[union-attr,operator]
    output, _ = _attend(Attention(), query, key, value, mask)
    torch.testing.assert_close(output, exact(query, key, value, visible))


def test_several_queries_take_torchs_kernel() -> None:
    query, key, value = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8)
    output, _ = _attend(Attention(), query, key, value, None)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(output, expected.transpose(1, 2))


def test_the_model_takes_it_only_within_and_only_in_half_precision(text: Tensor) -> None:
    model = tiny_model("llama")
    with fast_single_queries(model, torch.float32):
        assert model.config._attn_implementation == "sdpa"
    before = one_pass(model, text)
    with fast_single_queries(model, torch.bfloat16):
        assert model.config._attn_implementation != "sdpa"
        torch.testing.assert_close(one_pass(model, text), before)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_with_its_own_attention_keeps_it() -> None:
    model = tiny_model("gemma2").to(torch.bfloat16)
    model.set_attn_implementation("eager")
    with fast_single_queries(model, torch.bfloat16):
        assert model.config._attn_implementation == "eager"


def whole_rows(**changes: int) -> list[Tensor]:
    """query, key, value [2, 3, 9, 8] that want gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, changes.get(name, 3), 9, 8) for name in ("query", "key", "value"))
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def test_whole_rows_attend_causally_with_the_same_gradients() -> None:
    ours, torch_gradients = whole_rows(), whole_rows()
    output, _ = _attend_whole(Attention(), ours[0], ours[1], ours[2], None)
    expected = torch.nn.functional.scaled_dot_product_attention(
        torch_gradients[0], torch_gradients[1], torch_gradients[2], is_causal=True
    ).transpose(1, 2)
    torch.testing.assert_close(output, expected)
    weights = torch.arange(output.numel()).view(output.shape).sin()
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    for gradient, torch_gradient in zip(ours, torch_gradients, strict=True):
        torch.testing.assert_close(gradient.grad, torch_gradient.grad)


def test_whole_rows_with_fewer_stored_heads_take_torchs_kernel() -> None:
    query, key, value = whole_rows(query=4, key=2, value=2)
    output, _ = _attend_whole(Attention(), query, key, value, None)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(output, expected.transpose(1, 2))


def test_a_model_trains_the_same_within() -> None:
    """As pretraining uses it: float32 weights under autocast, as many stored heads as queries."""
    shape = LlamaShape(hidden_size=32, intermediate_size=64, layers=2, heads=4)
    text = torch.arange(24).view(2, 12) % 50
    grads = []
    for within in (False, True):
        model = random_llama(shape, vocab_size=50, end_token=0, seed=0)
        module = fast_whole_rows(model, torch.bfloat16) if within else nullcontext()
        with module, torch.autocast("cpu", dtype=torch.bfloat16):
            assert model.config._attn_implementation.startswith(
                "distillspec-whole" if within else "sdpa"
            )
            loss = model(input_ids=text, labels=text, use_cache=False).loss
        loss.backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    plain, ours = grads
    assert not torch.equal(plain, ours)  # another order of rounding: it was not torch's kernel
    assert float((plain - ours).norm() / plain.norm()) < 0.02

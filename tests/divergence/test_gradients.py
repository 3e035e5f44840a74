"""Gradients carried on from the logits."""

from __future__ import annotations

import pytest
import torch

from distillspec.divergence.distribution import distribution
from distillspec.divergence.gradients import GivenGradients, HeadGradients, accumulate
from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import ProjectedLogits

N, H, V = 4, 3, 6


def test_gradients_go_through_the_whole_head() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, H, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(V, H, dtype=torch.float64, generator=generator, requires_grad=True)
    bias = torch.randn(V, dtype=torch.float64, generator=generator, requires_grad=True)
    outer = torch.randn(N, V, dtype=torch.float64, generator=generator)
    row_weights = torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    head = OutputHead(weight, bias, scale=0.7, softcap=2.0)
    loss = (head.logits(hidden) / 0.5 * outer * row_weights[:, None]).sum()
    expected = torch.autograd.grad(loss, (hidden, weight, bias))

    logits = ProjectedLogits(
        hidden,
        head,
        dtype=torch.float64,
        precision=torch.float64,
        temperature=0.5,
        chunk_rows=3,
    )
    found = HeadGradients(logits, row_weights, hidden=True, weight=True, bias=True)
    for chunk, blocks in ((slice(0, 3), (slice(0, 2), slice(2, 3))), (slice(3, 4), (slice(3, 4),))):
        logits.load(chunk)
        for block in blocks:
            found.take(block, logits.distribution(block), outer[block].clone())
        found.finish(chunk)
    assert found.hidden is not None and found.weight is not None and found.bias is not None
    torch.testing.assert_close((found.hidden, found.weight, found.bias), expected)


def test_gradients_of_given_logits_are_zero_in_rows_left_out() -> None:
    logits = torch.zeros(N, 2, dtype=torch.bfloat16)
    found = GivenGradients(logits, torch.tensor([0, 3]), torch.tensor([2.0, 1.0]), temperature=0.5)
    found.take(slice(0, 2), distribution(torch.zeros(2, 2)), torch.ones(2, 2))
    found.finish(slice(0, 2))
    assert found.logits.dtype == torch.bfloat16
    assert found.logits[:, 0].tolist() == [4.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_added_in_float32(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillspec.divergence.gradients._PRODUCT_ELEMENTS", 2 * H)
    total, ones = torch.full((V, H), 256.0), torch.ones(V, 1, dtype=dtype)
    for _ in range(3):
        accumulate(total, ones, torch.ones(1, H, dtype=dtype))
    assert total.unique().tolist() == [259.0], "bfloat16 alone would stay at 256"


@pytest.mark.gpu
def test_a_gpu_adds_products_of_half_precision_in_float32() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    total = torch.full((V, H), 256.0, device="cuda")
    half = {"dtype": torch.bfloat16, "device": "cuda"}
    for _ in range(3):
        accumulate(total, torch.ones(V, 1, **half), torch.ones(1, H, **half))
    assert total.unique().tolist() == [259.0]

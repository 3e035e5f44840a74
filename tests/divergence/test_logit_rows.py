"""Logits a chunk at a time are the logits."""

from __future__ import annotations

import pytest
import torch

from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import (
    GivenLogits,
    LogitRows,
    ModelRows,
    ProjectedLogits,
    RowPlan,
    block_rows,
    multiply,
    product_dtype,
    spans,
    wide_precision,
)

N, H, V = 11, 5, 13


def rows_of(source: LogitRows, chunk_rows: int, block: int) -> torch.Tensor:
    found = []
    for chunk in spans(0, N, chunk_rows):
        source.load(chunk)
        for part in spans(chunk.start, chunk.stop, block):
            q = source.distribution(part)
            found.append(torch.cat([q.logits, q.probability, q.log_partition[:, None]], -1))
    return torch.cat(found)


def expected_rows(logits: torch.Tensor) -> torch.Tensor:
    return torch.cat([logits, logits.softmax(-1), logits.logsumexp(-1, keepdim=True)], -1)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_projected_rows_are_the_heads_logits_over_temperature(
    softcap: float | None, scale: float, biased: bool, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(N, H, generator=generator), torch.randn(V, H, generator=generator)
    head = OutputHead(weight, torch.arange(V) / 5.0 if biased else None, scale, softcap)
    source = ProjectedLogits(
        hidden,
        head,
        dtype=torch.float32,
        precision=torch.float32,
        temperature=temperature,
        chunk_rows=4,
    )
    assert source.vocab_size == V
    expected = expected_rows(head.logits(hidden) / temperature)
    torch.testing.assert_close(rows_of(source, 4, 3), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_given_rows_are_those_chosen_and_the_logits_stay_as_they_were(dtype: torch.dtype) -> None:
    logits = torch.randn(2 * N, V, generator=torch.Generator().manual_seed(0)).to(dtype)
    before, rows = logits.clone(), torch.arange(0, 2 * N, 2)
    source = GivenLogits(logits, rows, precision=torch.float32, temperature=2.0)
    expected = expected_rows(logits[rows].float() / 2.0)
    torch.testing.assert_close(rows_of(source, 4, 3), expected)
    assert torch.equal(logits, before)


def test_spans_cover_everything_once() -> None:
    assert list(spans(2, 9, 3)) == [slice(2, 5), slice(5, 8), slice(8, 9)]
    assert list(spans(0, 0, 3)) == []


def test_a_block_has_at_least_one_row() -> None:
    assert block_rows(10**9, torch.device("cpu")) == 1
    assert block_rows(4096, torch.device("cpu")) > 1


def test_products_are_in_the_dtype_of_autocast_where_it_is_on() -> None:
    hidden = torch.zeros(1, 1)
    assert product_dtype(hidden) == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product_dtype(hidden) == torch.bfloat16
        assert product_dtype(hidden.double()) == torch.float64


@pytest.mark.gpu
def test_a_gpu_does_not_round_products_of_half_precision() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    a, b = torch.randn(2, 64, 64, device="cuda").bfloat16()
    product = torch.empty(64, 64, device="cuda")
    multiply(a, b, product)
    torch.testing.assert_close(product, a.float() @ b.float(), rtol=1e-4, atol=1e-4)


def test_the_maths_is_as_wide_as_the_widest_and_float32_at_least() -> None:
    half, whole, double = (
        torch.zeros(1, dtype=d) for d in (torch.bfloat16, torch.float32, torch.float64)
    )
    assert wide_precision(half, half) == torch.float32
    assert wide_precision(half, whole) == torch.float32
    assert wide_precision(half, double) == torch.float64


def test_both_forms_of_rows_are_trimmed_and_chosen_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(N, H, generator=generator), torch.randn(V, H, generator=generator)
    projected, given = ModelRows(hidden, OutputHead(weight)), ModelRows(hidden @ weight.t())
    assert projected.vocab_size == given.vocab_size == V
    for rows in (projected, given):
        assert rows.trimmed(V + 1) is rows
        assert rows.trimmed(4).vocab_size == 4
    chosen, plan = torch.tensor([5, 2]), RowPlan.even(1.0, N, hidden)
    for change in (lambda rows: rows.trimmed(4), lambda rows: rows.only(chosen)):
        a, b = (plan.logits(change(rows)) for rows in (projected, given))
        torch.testing.assert_close(rows_of(a, N, N), rows_of(b, N, N))

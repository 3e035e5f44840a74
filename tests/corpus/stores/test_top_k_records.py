"""Packed records come back as they were, up to the rounding of their type."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillspec.corpus.stores.top_k_records import packed, record_type, unpacked
from distillspec.divergence.top_tokens import TopTokens, top_tokens
from distillspec.recipe.target_logits import CachedTargetConfig

N = 7


def signal(k: int, dtype: str = "float16") -> CachedTargetConfig:
    return CachedTargetConfig.model_validate({"kind": "cached", "k": k, "dtype": dtype})


def distribution(vocab_size: int, k: int) -> TopTokens:
    logits = 3.0 * torch.randn(N, vocab_size, generator=torch.Generator().manual_seed(0))
    logits[0, vocab_size - 1] = 20.0  # the largest id, nearly alone
    return top_tokens(logits, None, k=k, temperature=1.0, chunk_tokens=4)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("vocab_size", [5, 2**16, 2**16 + 1, 152_064])
def test_a_distribution_comes_back(vocab_size: int, dtype: str) -> None:
    original, plan = distribution(vocab_size, 4), signal(4, dtype)
    records = packed(original, record_type(plan, vocab_size))
    assert records.itemsize == plan.bytes_per_token(vocab_size)
    result = unpacked(np.frombuffer(records.tobytes(), records.dtype), vocab_size)
    assert torch.equal(result.ids, original.ids) and result.vocab_size == vocab_size
    torch.testing.assert_close(result.log_rest, original.log_rest, rtol=0, atol=0, equal_nan=True)
    rounded = 2.0**-11 if dtype == "float16" else 0.0
    torch.testing.assert_close(
        result.log_probability, original.log_probability, rtol=rounded, atol=1e-7
    )


def test_a_probability_too_small_for_half_precision_stays_one() -> None:
    logits = torch.tensor([[0.0, -30.0, -80.0]])
    original = top_tokens(logits, None, k=3, temperature=1.0, chunk_tokens=1)
    result = unpacked(packed(original, record_type(signal(3), 3)), 3)
    assert result.log_probability[0].tolist() == pytest.approx([0.0, -30.0, -80.0])
    assert bool(result.log_rest.isneginf().all())


def test_no_positions_make_no_records() -> None:
    original = distribution(9, 2).of(torch.empty(0, dtype=torch.long))
    assert unpacked(packed(original, record_type(signal(2), 9)), 9).ids.shape == (0, 2)

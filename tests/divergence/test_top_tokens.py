"""What is kept of a target's distribution is what a softmax over all of it says."""

from __future__ import annotations

import pytest
import torch

from distillspec.divergence.head import OutputHead
from distillspec.divergence.top_tokens import TopTokens, top_tokens

N, V, H = 9, 13, 5
HIDDEN = torch.randn(N, H, generator=torch.Generator().manual_seed(0))
HEAD = OutputHead(torch.randn(V, H, generator=torch.Generator().manual_seed(1)), scale=0.8)


def of_hidden(k: int, chunk_tokens: int = 4, temperature: float = 0.7) -> TopTokens:
    return top_tokens(HIDDEN, HEAD, k=k, temperature=temperature, chunk_tokens=chunk_tokens)


@pytest.mark.parametrize("k", [1, 3, V])
@pytest.mark.parametrize("chunk_tokens", [1, 4, 100])
def test_tokens_and_rest_are_those_of_the_whole_distribution(k: int, chunk_tokens: int) -> None:
    p = torch.softmax(HEAD.logits(HIDDEN) / 0.7, -1)
    expected, ids = p.sort(descending=True)
    found = of_hidden(k, chunk_tokens)
    assert found.vocab_size == V and found.ids.dtype == torch.int32
    assert torch.equal(found.ids.long(), ids[:, :k])
    torch.testing.assert_close(found.log_probability.exp(), expected[:, :k])
    torch.testing.assert_close(found.log_rest.exp(), expected[:, k:].sum(-1), rtol=1e-5, atol=0)


def test_logits_of_the_model_itself_give_the_same() -> None:
    logits = HEAD.logits(HIDDEN)
    found = top_tokens(logits, None, k=4, temperature=0.7, chunk_tokens=3)
    for mine, theirs in zip(found[:3], of_hidden(4)[:3], strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_rest_too_small_for_a_difference_from_one_keeps_its_size() -> None:
    logits = torch.tensor([[0.0, -60.0, -200.0]])
    found = top_tokens(logits, None, k=1, temperature=1.0, chunk_tokens=1)
    assert float(found.log_rest) == pytest.approx(-60.0)
    found = top_tokens(logits, None, k=2, temperature=1.0, chunk_tokens=1)
    assert float(found.log_rest) == pytest.approx(-200.0)


def test_the_whole_vocabulary_leaves_no_rest() -> None:
    assert bool(of_hidden(V).log_rest.isneginf().all())


def test_a_nan_is_not_hidden() -> None:
    logits = torch.tensor([[0.0, torch.nan], [0.0, 1.0]])
    found = top_tokens(logits, None, k=1, temperature=1.0, chunk_tokens=1)
    assert found.log_probability.isnan().any(-1).tolist() == [True, False]


def test_rows_are_picked_together() -> None:
    found = of_hidden(3)
    picked = found.of(torch.tensor([4, 1]))
    assert torch.equal(picked.ids, found.ids[[4, 1]])
    assert torch.equal(picked.log_probability, found.log_probability[[4, 1]])
    assert torch.equal(picked.log_rest, found.log_rest[[4, 1]])
    assert found.of(None) is found
    assert found.to("cpu").vocab_size == V

"""The pass over rows itself; test_chunked.py and test_coarse.py hold it against the whole."""

from __future__ import annotations

import pytest
import torch

from distillspec.divergence.comparison import AgainstTokens
from distillspec.divergence.head import OutputHead
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.row_pass import (
    Plan,
    even_plan,
    row_scores,
    rows_that_count,
    sums_from_hidden,
    sums_from_logits,
    wide_precision,
)

N, V, H = 7, 11, 4
TOKENS = torch.arange(N) % V
HEAD = OutputHead(torch.randn(V, H, generator=torch.Generator().manual_seed(1)))


def hidden() -> torch.Tensor:
    return torch.randn(N, H, generator=torch.Generator().manual_seed(0)).requires_grad_()


def sums(leaf: torch.Tensor, weights: torch.Tensor, chunk_rows: int) -> DivergenceSums:
    plan = Plan(rows_that_count(weights), weights, 0.7, chunk_rows, torch.float32)
    return sums_from_hidden(leaf, HEAD, AgainstTokens(plan.of(TOKENS)), plan)


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
def test_each_row_that_counts_is_scored_once_by_its_weight(chunk_rows: int) -> None:
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 1.0, 3.0])
    leaf = hidden()
    found = sums(leaf, weights, chunk_rows)
    log_q = torch.log_softmax(HEAD.logits(leaf) / 0.7, -1)
    expected = -(weights * log_q[torch.arange(N), TOKENS]).sum()
    torch.testing.assert_close(found.divergence, expected)
    assert found.tokens == 5
    mine, theirs = (torch.autograd.grad(one, leaf)[0] for one in (found.divergence, expected))
    torch.testing.assert_close(mine, theirs)


def test_hidden_states_and_their_logits_give_the_same_sums() -> None:
    weights, leaf = torch.ones(N), hidden()
    plan = Plan(None, weights, 0.7, 3, torch.float32)
    found = sums_from_logits(HEAD.logits(leaf), AgainstTokens(TOKENS), plan)
    torch.testing.assert_close(found.divergence, sums(leaf, weights, 3).divergence)


def test_scores_are_of_each_row_and_need_no_gradient() -> None:
    plan = even_plan(hidden(), 0.7, 3, torch.float32)
    with torch.no_grad():
        logits = HEAD.logits(hidden())
        found = row_scores(plan.given(logits), AgainstTokens(TOKENS), None, plan)
    log_q = torch.log_softmax(logits / 0.7, -1)
    torch.testing.assert_close(found.value, -log_q[torch.arange(N), TOKENS])


def test_a_second_backward_is_refused_rather_than_wrong() -> None:
    found = sums(hidden(), torch.ones(N), 3)
    found.divergence.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="formed once"):
        found.divergence.backward()  # type: ignore[no-untyped-call]


def test_the_maths_is_as_wide_as_the_widest_and_float32_at_least() -> None:
    half, whole, double = (
        torch.zeros(1, dtype=d) for d in (torch.bfloat16, torch.float32, torch.float64)
    )
    assert wide_precision(half, half) == torch.float32
    assert wide_precision(half, whole) == torch.float32
    assert wide_precision(half, double) == torch.float64


def test_no_index_is_made_where_all_rows_count() -> None:
    assert rows_that_count(torch.ones(3)) is None
    found = rows_that_count(torch.tensor([0.0, 1.0, 0.0, 2.0]))
    assert found is not None and found.tolist() == [1, 3]

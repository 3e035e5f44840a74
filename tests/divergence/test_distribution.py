"""Softmax and log partition by one exponential."""

from __future__ import annotations

import torch

from distillspec.divergence.distribution import (
    at_least_float32,
    distribution,
    without_impossible,
)


def test_log_partition_is_logsumexp() -> None:
    logits = 20 * torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    logits[0, :40] = -torch.inf
    q = distribution(logits)
    torch.testing.assert_close(q.log_partition, logits.logsumexp(-1))
    torch.testing.assert_close(q.probability, logits.softmax(-1))


def test_probabilities_go_into_the_room_given() -> None:
    room = torch.empty(2, 3)
    q = distribution(torch.zeros(2, 3), out=room)
    assert q.probability.data_ptr() == room.data_ptr()
    torch.testing.assert_close(room, torch.full((2, 3), 1 / 3))


def test_a_nan_is_not_hidden() -> None:
    logits = torch.zeros(2, 3)
    logits[1, 0] = torch.nan
    assert distribution(logits).log_partition.isnan().tolist() == [False, True]


def test_impossible_terms_become_zero_and_infinite_ones_stay() -> None:
    terms = torch.tensor([torch.nan, torch.inf, -torch.inf, 2.0])
    assert without_impossible(terms).tolist() == [0.0, torch.inf, -torch.inf, 2.0]


def test_half_precision_is_widened_and_float64_kept() -> None:
    assert at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert at_least_float32(torch.ones(1, dtype=torch.float64)).dtype == torch.float64

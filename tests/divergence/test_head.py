"""The output head, unchunked."""

from __future__ import annotations

import torch

from distillspec.divergence.head import OutputHead


def test_logits_are_bias_then_scale_then_soft_cap() -> None:
    hidden, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    head = OutputHead(weight, torch.tensor([1.0, 0.0]), scale=0.5, softcap=3.0)
    expected = 3.0 * torch.tanh(torch.tensor([[2.0, 4.0]]) / 3.0)
    torch.testing.assert_close(head.logits(hidden), expected)
    assert head.vocab_size == 2


def test_logits_are_in_the_dtype_of_the_hidden_states() -> None:
    head = OutputHead(torch.ones(3, 2), torch.zeros(3))
    assert head.logits(torch.ones(1, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16

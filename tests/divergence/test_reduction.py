"""What sums mean."""

from __future__ import annotations

import torch

from distillspec.divergence.comparison import TargetDivergence
from distillspec.divergence.logit_rows import ModelRows
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.row_pass import weighted_sums
from distillspec.divergence.table import divergence


def test_divergence_is_weighted_alpha_and_tokens_are_not() -> None:
    p = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]).log()
    q = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9]]).log()
    sums = weighted_sums(
        ModelRows(q),
        TargetDivergence(divergence("tvd"), ModelRows(p)),
        temperature=1.0,
        weights=torch.tensor([3.0, 0.25, 0.0]),
        chunk_tokens=2,
    )
    assert isinstance(sums, DivergenceSums)
    torch.testing.assert_close(sums.divergence, torch.tensor(0.25 * 0.5))
    torch.testing.assert_close(sums.alpha, torch.tensor(1.0 + 0.5))
    assert sums.tokens == 2

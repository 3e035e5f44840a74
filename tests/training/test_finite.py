from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from distillspec.training.finite import all_finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_found(value: float) -> None:
    model = nn.Linear(3, 2)
    assert all_finite(model)
    with torch.no_grad():
        model.weight[1, 2] = value
    assert not all_finite(model)


def test_weights_that_are_not_trained_do_not_count() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.bias[0] = math.nan
    model.bias.requires_grad_(False)
    assert all_finite(model)
    assert all_finite(model.requires_grad_(False))

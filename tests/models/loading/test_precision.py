from __future__ import annotations

import torch

from distillspec.models.loading.precision import describe, fast_dtype


def test_the_type_is_one_of_two_and_does_not_change_within_a_process() -> None:
    first = fast_dtype("cpu")
    assert first in (torch.bfloat16, torch.float32)
    assert all(fast_dtype(torch.device("cpu")) is first for _ in range(3))


def test_the_description_names_the_type_and_the_measured_gain() -> None:
    line = describe("cpu")
    assert f"computes in {str(fast_dtype('cpu')).removeprefix('torch.')}" in line
    assert "x as fast as float32" in line

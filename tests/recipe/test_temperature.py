from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from distillspec.errors import DistillSpecError
from distillspec.recipe.temperature import Temperature
from distillspec.speculation.sampling import SamplingPolicy


@pytest.mark.parametrize("temperature", [1e-310, 1e-45, 1e-38, 9e-6, -1.0, float("nan")])
def test_what_logits_cannot_be_divided_by_is_refused_everywhere(temperature: float) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Temperature).validate_python(temperature)
    with pytest.raises(DistillSpecError, match="temperature is"):
        SamplingPolicy(temperature)


@pytest.mark.parametrize("temperature", [0.0, 1e-5, 1e-3, 1.0, 4.0])
def test_what_can_be_computed_is_taken_everywhere(temperature: float) -> None:
    assert TypeAdapter(Temperature).validate_python(temperature) == temperature
    assert SamplingPolicy(temperature).temperature == temperature

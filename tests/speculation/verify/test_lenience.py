from __future__ import annotations

import pytest
import torch

from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.verify.lenience import FORMS, lenient
from distillspec.speculation.verify.token import verify_token
from tests.speculation.verify.exact import (
    EXACT,
    chain_distance,
    expected_of_chains,
    random_model,
)


@pytest.mark.parametrize("form", FORMS)
def test_without_lenience_it_is_lossless(form: str) -> None:
    p, q = random_model(4, 2, 1), random_model(4, 2, 2)
    assert chain_distance(lenient(form, 1.0), p, q, 4, 2) < EXACT


@pytest.mark.parametrize("form", FORMS)
def test_lenience_keeps_more_and_loses_the_distribution(form: str) -> None:
    p, q = random_model(4, 2, 1), random_model(4, 2, 2)
    assert chain_distance(lenient(form, 0.5), p, q, 4, 2) > 0.01
    lengths = [expected_of_chains(lenient(form, eps), p, q, 2) for eps in (1.0, 0.7, 0.4)]
    assert lengths[0] == pytest.approx(expected_of_chains(verify_token, p, q, 2))
    assert lengths[0] < lengths[1] < lengths[2]


@pytest.mark.parametrize("form", FORMS)
def test_at_temperature_zero_it_changes_nothing(form: str) -> None:
    one_hot = torch.eye(4)
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    result = lenient(form, 0.3)(
        one_hot[[1, 2, 3]], one_hot[[1, 3]], torch.tensor([1, 3]), random_source
    )
    assert result.tokens == [1, 2]

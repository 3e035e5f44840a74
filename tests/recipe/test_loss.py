from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from distillspec.recipe.loss import UNITS, MixConfig, Term


def test_every_loss_can_be_mixed() -> None:
    assert list(MixConfig.model_fields) == list(get_args(Term))


def test_every_loss_has_a_unit() -> None:
    assert list(UNITS) == list(get_args(Term))


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="names no loss"):
        MixConfig()
    assert MixConfig(tvd=0.5, nll=2.0).terms == {"tvd": 0.5, "nll": 2.0}

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.training.trainer import quiet
from tests.training import tiny_run


def test_a_missing_logger_is_named(tiny_pair: Path, tmp_path: Path) -> None:
    made = tiny_run.parts(tiny_pair, tiny_run.recipe(hardware={"wandb_project": "x"}))
    with pytest.raises(DistillSpecError, match="Weights & Biases"):
        tiny_run.run(made, tmp_path)


def test_quiet_hides_lightnings_advice_and_no_other_warning() -> None:
    lightning = logging.getLogger("lightning.pytorch")
    before = lightning.level
    with quiet():
        assert lightning.level == logging.ERROR
        warnings.warn("the loader does not have many workers", stacklevel=1)
        with pytest.warns(UserWarning, match="disk"):
            warnings.warn("the disk is slow", stacklevel=1)
    assert lightning.level == before

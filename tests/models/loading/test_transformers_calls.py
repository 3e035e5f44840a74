from __future__ import annotations

from pathlib import Path

import pytest
from transformers.utils import logging as transformers_logging

from distillspec.errors import DistillSpecError
from distillspec.models.loading.transformers_calls import explained, quiet


def test_an_error_of_any_class_names_the_users_path() -> None:
    view = Path("/scratch/view/model")
    with pytest.raises(DistillSpecError) as caught, explained("my-model", "draft", view):
        raise KeyError(f"{view}/config.json is odd\nsecond line")
    assert "draft" in caught.value.what
    assert "my-model/config.json" in caught.value.what
    assert str(view) not in str(caught.value)
    assert caught.value.where == "my-model"


def test_a_missing_package_is_named() -> None:
    with pytest.raises(DistillSpecError, match="sentencepiece"), explained("folder", "target"):
        raise ImportError("no such package", name="sentencepiece")


def test_an_error_of_ours_stays_as_it_is() -> None:
    own = DistillSpecError("what", where="where", fix="fix")
    with pytest.raises(DistillSpecError) as caught, explained("folder", "target"):
        raise own
    assert caught.value is own


def test_quiet_leaves_the_verbosity_as_it_was() -> None:
    before = transformers_logging.get_verbosity()
    with quiet():
        assert transformers_logging.get_verbosity() == transformers_logging.ERROR
        assert not transformers_logging.is_progress_bar_enabled()
    assert transformers_logging.get_verbosity() == before

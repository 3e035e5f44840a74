from __future__ import annotations

import logging
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.models.loading.local_folder import MODEL_FILES, local_folder


def fetch(path: Path | str) -> Path:
    return local_folder(str(path), None, "target", MODEL_FILES, trust_remote_code=False)


def test_a_folder_is_taken_as_it_is(tiny_pair: Path) -> None:
    assert fetch(tiny_pair / "target") == tiny_pair / "target"


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="folder does not exist"):
        fetch(tmp_path / "absent")


def test_a_file_in_place_of_a_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(DistillSpecError, match="is a file"):
        fetch(tmp_path / "model")


def test_a_hub_id_without_network_says_so_and_prints_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(DistillSpecError) as caught:
        fetch("nobody-at-all/no-model")
    assert "cannot be reached" in caught.value.what
    assert caught.value.where == "nobody-at-all/no-model"
    assert capfd.readouterr().err == ""


def test_a_malformed_hub_id_says_so() -> None:
    with pytest.raises(DistillSpecError, match="well-formed"):
        fetch("nobody/--what..is")

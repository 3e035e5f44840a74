from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.gguf_file import check_can_convert, converted_folder, gguf_file


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "small-Q4_1.gguf"
    file.write_bytes(b"GGUF")
    return file


def test_a_file_and_the_folder_that_holds_it_alone_are_it(packed: Path) -> None:
    (packed.parent / "mmproj-small.gguf").write_bytes(b"GGUF")
    (packed.parent / "config.json").write_text("{}")
    assert gguf_file(str(packed)) == gguf_file(str(packed.parent)) == packed


def test_other_folders_and_files_are_none(packed: Path, tmp_path: Path) -> None:
    (packed.parent / "model.safetensors").write_bytes(b"x")
    for path in (packed.parent, tmp_path, tmp_path / "nowhere.gguf", Path(__file__)):
        assert gguf_file(str(path)) is None


def test_several_files_and_parts_of_one_are_refused(packed: Path) -> None:
    (packed.parent / "small-Q8_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(DistillSpecError, match="2 GGUF files.*small-Q4_1.gguf, small-Q8_0") as one:
        gguf_file(str(packed.parent))
    assert "name one of the files" in one.value.fix
    part = packed.parent / "large-00001-of-00002.gguf"
    part.write_bytes(b"GGUF")
    with pytest.raises(DistillSpecError, match="one part of a model"):
        gguf_file(str(part))


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json",
        "consolidated.00.pth",
        "model.pt",
        "tf_model.h5",
    ],
)
def test_pickled_weights_beside_it_are_a_second_model(packed: Path, name: str) -> None:
    (packed.parent / name).write_bytes(b"x")
    with pytest.raises(DistillSpecError, match=f"two models: small-Q4_1.gguf and {name}") as one:
        gguf_file(str(packed.parent))
    assert "name the GGUF file" in one.value.fix
    assert gguf_file(str(packed)) == packed


def test_the_state_of_a_training_beside_it_is_none(packed: Path) -> None:
    for name in ("optimizer.pt", "training_args.bin", "scheduler.pt", "rng_state.pth"):
        (packed.parent / name).write_bytes(b"x")
    assert gguf_file(str(packed.parent)) == packed


def test_a_pipe_is_no_model(packed: Path) -> None:
    packed.unlink()
    os.mkfifo(packed)
    with pytest.raises(DistillSpecError, match="named pipe"):
        gguf_file(str(packed))


def test_a_file_that_changes_has_another_conversion(packed: Path) -> None:
    before = converted_folder(packed)
    assert converted_folder(packed) == before
    assert before.name.startswith("small-Q4_1-")
    packed.write_bytes(b"GGUF, longer")
    assert converted_folder(packed) != before


def test_the_package_that_is_missing_is_named(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DistillSpecError, match="needs the package 'gguf'") as caught:
        check_can_convert(packed)
    assert "pip install gguf" in caught.value.fix

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.written_files import (
    MARKER,
    MODEL_FILES,
    PRETRAINED_FILES,
    TOKENIZER_FILES,
    check_marked,
    mark_written,
)
from distillspec.runtime.atomic import check_replaceable

NANO = Path(__file__).parents[2] / "checkpoints" / "nano-python"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "config.json").write_text("{}")
    return tmp_path / "made"


def test_what_transformers_writes_may_be_replaced(tiny_pair: Path) -> None:
    for files in (MODEL_FILES, PRETRAINED_FILES):
        check_replaceable(tiny_pair / "target", files)
    assert any((tiny_pair / "target" / name).exists() for name in TOKENIZER_FILES)


def test_a_model_is_the_programs_only_where_a_marker_says_so(folder: Path) -> None:
    with pytest.raises(DistillSpecError, match=r"other files: config\.json"):
        check_replaceable(folder, check_marked)
    mark_written(folder)
    (folder / "README.md").write_text("notes")
    check_replaceable(folder, check_marked)
    (folder / "README.md").unlink()
    (folder / "config.json").unlink()
    check_replaceable(folder, check_marked)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors", "sub/x"])
def test_a_file_that_was_added_or_changed_is_the_users(folder: Path, name: str) -> None:
    mark_written(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    with pytest.raises(DistillSpecError, match=f"other files: {name}"):
        check_marked(folder)


def test_a_link_in_place_of_a_written_file_is_the_users(folder: Path) -> None:
    mark_written(folder)
    (folder / "config.json").rename(folder.parent / "elsewhere")
    os.symlink(folder.parent / "elsewhere", folder / "config.json")
    with pytest.raises(DistillSpecError, match=r"other files: config\.json"):
        check_marked(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": 3}', '{"sha256": ["ab"]}', "\x00"])
def test_a_marker_of_another_program_says_nothing(folder: Path, text: str) -> None:
    (folder / MARKER).write_text(text)
    with pytest.raises(DistillSpecError, match=r"other files: config\.json, pretraining\.json"):
        check_marked(folder)


@pytest.mark.parametrize("name", ["target", "draft"])
def test_the_shipped_pair_can_be_made_again(name: str) -> None:
    check_replaceable(NANO / name, check_marked)

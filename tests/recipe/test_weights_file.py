from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model
from distillspec.recipe.model_files import model_files
from distillspec.recipe.weights_file import check_size, read_header, stored_tensors


@pytest.mark.parametrize("content", [b"", b"\x00" * 4, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]"])
def test_a_file_that_is_no_safetensors_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(DistillSpecError, match="damaged"):
        read_header(tmp_path / "model.safetensors")


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(DistillSpecError, match="the file is empty"):
        read_header(tmp_path / "model.safetensors")


def test_a_weight_in_two_files_is_refused(tmp_path: Path) -> None:
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for file in files:
        save_file({"a": torch.zeros(2)}, file)
    with pytest.raises(DistillSpecError, match="a is in two files: one.safetensors and two"):
        stored_tensors(files)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("num_hidden_layers", 10**9, "1,000,000,000 layers, and the weights next to it hold"),
        ("num_hidden_layers", 1e9, "1,000,000,000 layers"),
        ("hidden_size", 10**6, "at least .* parameters"),
        ("vocab_size", 10**12, "at least"),
        ("intermediate_size", 10**9, "at least"),
    ],
)
def test_a_config_of_another_size_is_refused_before_anything_is_built(
    key: str, value: float, says: str, tiny_pair: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "draft"
    shutil.copytree(tiny_pair / "draft", folder)
    check_size(model_files(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(DistillSpecError, match=says):
        check_size(model_files(folder))
    with pytest.raises(DistillSpecError, match=says):
        load_model(str(folder), dtype=torch.float32)


@pytest.mark.parametrize("odd", [None, True, -1, "many", [2], float("nan"), float("inf"), 10**400])
def test_a_size_that_is_no_number_is_left_to_the_loader(
    odd: object, tiny_pair: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_pair / "draft", tmp_path / "draft")
    files = model_files(tmp_path / "draft")
    check_size(files._replace(config={"num_hidden_layers": odd, "hidden_size": odd}))

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.models.folder import (
    check_tokenizer_files,
    folder_facts,
    read_config,
    read_header,
    weight_files,
)
from distillspec.models.loading import load_model


def test_facts_are_those_of_the_loaded_model(tiny_pair: Path) -> None:
    facts = folder_facts(str(tiny_pair / "target"))
    model = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.weight_bytes == 4 * (facts.parameters or 0)
    assert (facts.vocabulary, facts.hidden_size, facts.layers) == (300, 32, 2)
    assert (facts.architecture, facts.dtype) == ("LlamaForCausalLM", "F32")
    assert (facts.local, facts.max_positions) == (True, 512)


def test_reading_facts_imports_no_torch(tiny_pair: Path) -> None:
    code = (
        "import sys; from distillspec.models.folder import folder_facts;"
        f"folder_facts({str(tiny_pair / 'draft')!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_without_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="no config.json"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", ["", "{'a': 1}", "[1]", "\x00\x01"])
def test_a_config_that_is_no_json_object_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DistillSpecError, match="JSON"):
        read_config(tmp_path)


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="holds no weights"):
        weight_files(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "one.safetensors").write_bytes(b"")
    with pytest.raises(DistillSpecError, match="1 of 2 weight files are missing: two.safetensors"):
        weight_files(tmp_path)


def test_a_damaged_index_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(DistillSpecError, match="index of the weight files"):
        weight_files(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 4, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]"])
def test_a_file_that_is_no_safetensors_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(DistillSpecError, match="damaged"):
        read_header(tmp_path / "model.safetensors")


def test_a_folder_without_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="no tokenizer"):
        check_tokenizer_files(tmp_path)

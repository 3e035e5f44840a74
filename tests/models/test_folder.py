from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from distillspec.errors import DistillSpecError
from distillspec.models.folder import folder_facts, read_header, stored_tensors
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


@pytest.mark.parametrize("key", ["architectures", "vocab_size", "num_hidden_layers"])
def test_a_config_of_odd_values_gives_facts_that_are_not_known(
    tiny_pair: Path, tmp_path: Path, key: str
) -> None:
    folder = shutil.copytree(tiny_pair / "target", tmp_path / "target")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: {"odd": []}}))
    facts = folder_facts(str(folder))
    assert None in (facts.architecture, facts.vocabulary, facts.layers)

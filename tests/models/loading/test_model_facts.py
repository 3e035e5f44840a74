from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distillspec.models.loading.load import load_model
from distillspec.models.loading.model_facts import folder_facts


def test_facts_are_those_of_the_loaded_model(tiny_pair: Path) -> None:
    facts = folder_facts(str(tiny_pair / "target"))
    model = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.weight_bytes == 4 * (facts.parameters or 0)
    assert (facts.vocab_size, facts.hidden_size, facts.layers) == (300, 32, 2)
    assert (facts.architecture, facts.dtype) == ("LlamaForCausalLM", "F32")
    assert (facts.local, facts.max_positions) == (True, 512)


def test_reading_facts_imports_no_torch(tiny_pair: Path) -> None:
    code = (
        "import sys; from distillspec.models.loading.model_facts import folder_facts;"
        f"folder_facts({str(tiny_pair / 'draft')!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("key", ["architectures", "vocab_size", "num_hidden_layers"])
def test_a_config_of_odd_values_gives_facts_that_are_not_known(
    tiny_pair: Path, tmp_path: Path, key: str
) -> None:
    folder = shutil.copytree(tiny_pair / "target", tmp_path / "target")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: {"odd": []}}))
    facts = folder_facts(str(folder))
    assert None in (facts.architecture, facts.vocab_size, facts.layers)

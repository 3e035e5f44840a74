"""A working folder with the files that the verbs' command lines name."""

from __future__ import annotations

from pathlib import Path

import pytest

EMPTY = b"\x02" + b"\0" * 7 + b"{}"  # a safetensors file of no tensors
RECIPE = """\
pair: {target: models/target, draft: models/draft}
data:
  source: {kind: jsonl, path: prompts.jsonl}
evaluate: {suite: suite.yaml}
"""
PRETRAIN = """\
kind: pretrain
output: out
corpus: {kind: python-source, packages: [pytest]}
tokenizer: {vocab_size: 300}
model: {hidden_size: 32, intermediate_size: 64, layers: 2, heads: 2}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pair.yaml, pretrain.yaml, suite.yaml, and the run folder checkpoints/runs/pair/1."""
    monkeypatch.chdir(tmp_path)
    for name in ("target", "draft"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / file).write_bytes(EMPTY if file.endswith("safetensors") else b"{}")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n', encoding="utf-8")
    (tmp_path / "suite.yaml").write_text("gammas: [3]\n", encoding="utf-8")
    (tmp_path / "pair.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "pretrain.yaml").write_text(PRETRAIN, encoding="utf-8")
    run = tmp_path / "checkpoints" / "runs" / "pair" / "1"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(f"name: pair\n{RECIPE}", encoding="utf-8")
    return tmp_path

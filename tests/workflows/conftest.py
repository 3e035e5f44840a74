"""The folder that runs of these tests work in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from distillspec.recipe.schema import Recipe
from tests.workflows.tiny_workplace import (
    SUITE,
    recipe,
)


@pytest.fixture
def workplace(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_pair, tmp_path / "pair")
    rows = ({"prompt": f"def f{i}(x):", "response": f"\n    return x + {i}"} for i in range(40))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tiny.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def kept() -> Recipe:
    signal = {"kind": "cached", "k": 16}
    return recipe(source={"fixed": 0.5, "target": 0.5}, divergence="tvd", target_logits=signal)

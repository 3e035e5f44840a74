"""The examples of the documentation, each run as a user runs it: in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXPECTED = {
    "custom_divergence.py": ["before: forward_kl", "hellinger", "after "],
    "decode_with_draft.py": ["48 tokens in", "accepted"],
    "train_and_export.py": ["draft: checkpoints/runs/first-draft/", "distilled: alpha"],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_runs_in_an_empty_folder(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/examples" / name)],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [text for text in EXPECTED[name] if text not in done.stdout] == []


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "docs/examples").glob("*.py")} == set(EXPECTED)

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.seq2seq import written_pair


@pytest.mark.distributed
@pytest.mark.parametrize("has_encoder", [False, True], ids=["causal", "encoder-decoder"])
def test_a_model_split_over_two_processes_is_the_same_model(
    has_encoder: bool, tiny_pair: Path, tmp_path: Path
) -> None:
    """What is checked is in the program."""
    pair = written_pair(tmp_path, tied=False) if has_encoder else tiny_pair
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", "-m", "tests.models.splitting", str(pair / "target")),
        ],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout

from __future__ import annotations

from pathlib import Path

import pytest

from tests.seq2seq import written_pair
from tests.two_processes import run_by_two


@pytest.mark.distributed
@pytest.mark.parametrize("has_encoder", [False, True], ids=["causal", "encoder-decoder"])
def test_a_model_split_over_two_processes_is_the_same_model(
    has_encoder: bool, tiny_pair: Path, tmp_path: Path
) -> None:
    """What is checked is in the program."""
    pair = written_pair(tmp_path, tied=False) if has_encoder else tiny_pair
    run_by_two("tests.models.splitting", str(pair / "target"))

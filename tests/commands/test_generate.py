from __future__ import annotations

import pytest

from distillspec.__main__ import main

pytestmark = pytest.mark.usefixtures("place")


def test_generate_tells_what_the_recipe_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "pair.yaml", "--dry-run"]) == 0
    assert "local folder models/target" in capsys.readouterr().out


def test_generate_wants_a_recipe_not_a_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "checkpoints/runs/pair/1"]) == 1
    assert "this is a folder, not a recipe" in capsys.readouterr().err

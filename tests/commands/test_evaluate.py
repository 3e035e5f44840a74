from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.__main__ import main

pytestmark = pytest.mark.usefixtures("place")


@pytest.mark.parametrize("path", ["pair.yaml", "checkpoints/runs/pair/1"])
def test_evaluate_tells_of_a_recipe_or_a_run_folder_what_it_would_do(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", path, "--dry-run"]) == 0
    assert "local folder models/target" in capsys.readouterr().out


def test_evaluate_refuses_a_pretraining_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "pretrain.yaml", "--dry-run"]) == 1
    assert "distils no pair" in capsys.readouterr().err


def test_evaluate_checks_the_suite_before_anything_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["evaluate", "pair.yaml", "--suite", "none.yaml"]) == 1
    assert "no such suite" in capsys.readouterr().err


def test_evaluate_of_a_recipe_that_was_never_run_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["evaluate", "pair.yaml", "name=other"]) == 1
    assert "has not been run yet" in capsys.readouterr().err


def test_the_suite_of_the_command_line_is_the_one_that_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("mine.yaml").write_text("gammas: [7]\n")
    assert main(["evaluate", "pair.yaml", "--suite", "mine.yaml", "--dry-run"]) == 0
    assert "mine.yaml: standard x gamma [7]" in capsys.readouterr().out

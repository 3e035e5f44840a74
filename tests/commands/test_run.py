from __future__ import annotations

import pytest

from distillspec.__main__ import main

pytestmark = pytest.mark.usefixtures("place")


@pytest.mark.parametrize("path", ["pair.yaml", "checkpoints/runs/pair/1"])
def test_run_tells_of_a_recipe_or_a_run_folder_what_it_would_do(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", path, "--dry-run"]) == 0
    assert "local folder models/target" in capsys.readouterr().out


def test_run_refuses_a_pretraining_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "pretrain.yaml", "--dry-run"]) == 1
    assert "distils no pair" in capsys.readouterr().err


def test_run_prints_json_only_where_there_is_something_to_print(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "pair.yaml", "--json"]) == 1
    assert "--json belongs to --dry-run" in capsys.readouterr().err
    assert main(["run", "pair.yaml", "--json", "--dump-config"]) == 0
    assert capsys.readouterr().out.startswith("{")

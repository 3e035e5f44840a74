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
    reported = capsys.readouterr().out
    assert "local folder models/target" in reported
    assert "train" not in reported  # an evaluation trains nothing


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


def test_keys_of_the_suite_change_the_suite_also_of_a_run_that_keeps_its_recipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = ["gammas=[5]", "suite.name=other", "prompts.source={kind: python-topics}"]
    assert main(["evaluate", "checkpoints/runs/pair/1", *changes, "--dry-run"]) == 0
    reported = capsys.readouterr().out
    assert "suite.yaml: standard x gamma [5]" in reported
    assert "prose of Python's language reference" in reported
    assert main(["evaluate", "checkpoints/runs/pair/1", "seed=3", "--dry-run"]) == 1
    assert "keeps its recipe" in capsys.readouterr().err
    assert main(["evaluate", "pair.yaml", "suite.gamma=[5]", "--dry-run"]) == 1
    assert "did you mean 'gammas'?" in capsys.readouterr().err


def test_a_file_that_stands_in_for_a_data_set_must_be_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("mine.yaml").write_text("prompts: {source: {kind: hub, dataset: a/b}}\n")
    line = ["evaluate", "pair.yaml", "--suite", "mine.yaml", "--dry-run"]
    assert main([*line, "prompts.source.path=prompts.jsonl"]) == 0
    assert "rows of prompts.jsonl" in capsys.readouterr().out
    assert main([*line, "prompts.source.path=none.jsonl"]) == 1
    assert "no such data file: 'none.jsonl'" in capsys.readouterr().err


def test_evaluate_of_a_target_behind_an_endpoint_says_why_not_and_what_instead(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("b.yaml").write_text(
        "pair: {draft: models/draft, endpoint: {url: 'http://h:1/v1', model: big}}\n"
        "data: {source: {kind: jsonl, path: prompts.jsonl}}\n"
        "distill: {divergence: nll, source: {target: 1.0}}\n"
        "evaluate: {suite: suite.yaml}\n"
    )
    assert main(["evaluate", "b.yaml", "--dry-run"]) == 1
    said = capsys.readouterr().err
    assert "an endpoint gives text alone" in said
    assert "distillspec tune TARGET RUN-FOLDER/draft" in said


@pytest.mark.parametrize("path", ["pair.yaml", "checkpoints/runs/pair/1"])
def test_the_drafts_that_are_told_are_those_of_the_run(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def reported() -> str:
        assert main(["evaluate", path, "--dry-run"]) == 0
        return capsys.readouterr().out.partition("drafts: ")[2].strip()

    run = Path("checkpoints/runs/pair/1")
    (run / "best.ckpt").write_bytes(b"")
    assert reported() == "undistilled, distilled"
    (run / "control").mkdir()
    assert reported() == "undistilled, distilled"
    (run / "control" / "best.ckpt").write_bytes(b"")
    assert reported() == "undistilled, distilled, control"


@pytest.mark.parametrize("control", [True, False])
def test_of_a_recipe_that_was_not_run_yet_it_tells_the_drafts_that_it_would_train(
    control: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["name=other", f"evaluate.control={str(control).lower()}"]
    assert main(["evaluate", "pair.yaml", *changes, "--dry-run"]) == 0
    reported = capsys.readouterr().out.partition("drafts: ")[2].strip()
    assert reported == "undistilled, distilled" + (", control" if control else "")

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.output import check_output, check_writable, output_folder
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.written_files import mark_written

RUN = Path("checkpoints/runs/small")


def recipe(output: str, **changes: object) -> PretrainRecipe:
    return PretrainRecipe.model_validate(
        {
            "kind": "pretrain",
            "name": "small",
            "output": output,
            "corpus": {"kind": "jsonl", "path": "rows.jsonl"},
            "tokenizer": {"take_from": "target"},
            "model": {"hidden_size": 16, "intermediate_size": 32, "layers": 1, "heads": 2},
            **changes,
        }
    )


def refused(output: str, **changes: object) -> DistillSpecError:
    with pytest.raises(DistillSpecError) as caught:
        check_output(recipe(output, **changes), RUN, "p.yaml: output")
    return caught.value


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("target").mkdir()
    Path("target/config.json").write_text("{}")


@pytest.mark.parametrize("name", ["target", "./target/", "link", "made/../target"])
def test_the_model_whose_tokenizer_is_taken_is_not_written_over(name: str) -> None:
    mark_written(Path("target"))
    Path("made").mkdir()
    os.symlink("target", "link")
    error = refused(name)
    assert "its tokenizer is taken" in error.what
    assert error.where == "p.yaml: output"


def test_the_model_that_training_goes_on_from_may_be_written_over() -> None:
    check_output(recipe("target", model=None, start_from="./target"), RUN, "output")
    Path("target/vocab.txt").write_text("mine")
    assert "vocab.txt" in refused("target", model=None, start_from="./target").what


def test_a_foreign_model_is_not_written_over() -> None:
    Path("dest").mkdir()
    Path("dest/config.json").write_text('{"my": 1}')
    assert "other files: config.json" in refused("dest").what
    check_output(recipe("empty"), RUN, "output")


@pytest.mark.parametrize(
    "output", ["checkpoints", "checkpoints/runs", str(RUN), f"{RUN}/model", ".", "/"]
)
def test_a_place_that_overlaps_the_run_folder_is_refused(output: str) -> None:
    assert "run folder" in refused(output).what


def test_a_home_folder_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_folder(recipe("~/made")) == tmp_path / "made"
    assert "its tokenizer is taken" in refused("~/target").what


@pytest.mark.parametrize("output", ["/proc/none", "target/config.json/made"])
def test_a_place_that_cannot_be_written_is_refused_and_nothing_is_left(output: str) -> None:
    assert "cannot write to" in refused(output).what
    assert sorted(os.listdir()) == ["target"]


@pytest.mark.parametrize("has_unnamed_files", [True, False])
def test_what_is_tried_is_undone(
    has_unnamed_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_unnamed_files:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    check_writable(tmp_path / "a" / "b", "x")
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("name", ["loop", "loop/made"])
def test_a_link_to_itself_is_refused(name: str) -> None:
    os.symlink("loop", "loop")
    assert refused(name).where

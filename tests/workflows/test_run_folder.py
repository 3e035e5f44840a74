from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import Recipe
from distillspec.training import resume
from distillspec.workflows.run_folder import RunFolder


def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "sample",
            "pair": {"target": "t", "draft": "d"},
            "data": {"source": {"kind": "jsonl", "path": "rows.jsonl"}},
            "distill": {"divergence": "jsd", "jsd_weight": 0.25},
        }
    )


def test_a_new_folder_holds_a_recipe_that_loads_again_identically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.begin(recipe())
    assert folder.path.parts[:3] == ("checkpoints", "runs", "sample")
    assert folder.recipe() == recipe()


def test_two_runs_started_in_one_second_get_two_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunFolder.begin(recipe()).path != RunFolder.begin(recipe()).path


_KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from distillspec.workflows import run_folder
from tests.workflows.test_run_folder import recipe

run_folder.dump_yaml = lambda _: os.kill(os.getpid(), signal.SIGKILL)
run_folder.RunFolder.begin(recipe())
"""


def test_a_start_that_was_killed_leaves_nothing_behind_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    runs = tmp_path / "checkpoints/runs/sample"
    assert len(list(runs.iterdir())) == 1
    begun = RunFolder.begin(recipe())
    assert [folder.name for folder in runs.iterdir()] == [begun.path.name]
    assert [file.name for file in begun.path.iterdir()] == ["recipe.yaml"]


def test_training_logs_are_named_like_the_drafts_that_were_trained(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert list(folder.metrics) == ["distilled"]
    folder.control.mkdir()
    assert list(folder.metrics) == ["distilled", "control"]


def test_a_pretraining_folder_is_no_distillation_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "kind: pretrain\noutput: out\ncorpus: {kind: python-source, standard_library: true}\n"
        "tokenizer: {vocab_size: 300}\n"
        "model: {hidden_size: 16, intermediate_size: 32, layers: 1, heads: 2}\n"
    )
    with pytest.raises(DistillSpecError, match="pretraining run"):
        RunFolder(tmp_path).recipe()


def test_a_draft_is_trained_where_training_has_left_its_best_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.trained == {}
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / resume.BEST).write_bytes(b"")
    assert folder.trained == {"control": tmp_path / "control"}
    (tmp_path / resume.BEST).write_bytes(b"")
    assert list(folder.trained) == ["distilled", "control"]

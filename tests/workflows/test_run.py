"""The run folder that a process works in."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import Recipe
from distillspec.workflows import distill
from distillspec.workflows import run as run_workflow
from distillspec.workflows.run import check_not_lost
from distillspec.workflows.run_folder import RunFolder
from tests.workflows.tiny_workplace import (
    recipe,
)


def test_a_run_folder_that_is_deleted_as_soon_as_it_is_there_stays_deleted(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = RunFolder.begin

    def deleted(plan: Recipe) -> RunFolder:
        run = begin(plan)
        shutil.rmtree(run.path)
        return run

    monkeypatch.setattr(RunFolder, "begin", deleted)
    with pytest.raises(DistillSpecError, match="gone"):
        distill.train(recipe(), None)
    assert not list(Path("checkpoints/runs").glob("*/*"))


@pytest.mark.parametrize("name", ["distilled", "control"])
def test_best_weights_that_are_gone_are_not_passed_over(name: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    folder = tmp_path if name == "distilled" else run.control
    folder.mkdir(exist_ok=True)
    check_not_lost(folder, name, run)  # nothing was trained
    (folder / "last.ckpt").touch()
    with pytest.raises(DistillSpecError, match=f"no best weights of the {name} draft"):
        check_not_lost(folder, name, run)
    (folder / "last.ckpt").unlink()
    run.training_file.write_text(json.dumps({name: {"steps": 8}}))
    with pytest.raises(DistillSpecError, match=f"best step of the {name} draft are gone") as caught:
        check_not_lost(folder, name, run)
    assert caught.value.where == str(folder / "best.ckpt")
    assert f"train {tmp_path}" in caught.value.fix


@pytest.mark.parametrize(
    ("device", "load", "threads", "is_noted"),
    [
        ("cpu", 2.5, 2, True),
        ("cpu", 0.5, 2, False),
        ("cpu", 2.5, 1, False),
        ("cuda", 9.0, 2, False),
    ],
)
def test_a_busy_cpu_is_noted_before_it_slows_a_run_down(
    device: str, load: float, threads: int, is_noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    note = run_workflow._busy_note(torch.device(device))
    assert (note is not None and "hardware.threads=1" in note) == is_noted

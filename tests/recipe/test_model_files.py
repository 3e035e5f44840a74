from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.model_files import (
    ModelFiles,
    check_tokenizer_files,
    is_missing,
    model_files,
    model_folder,
    read_config,
)

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config.json."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")


def put_index(folder: Path, *names: Any) -> None:
    listed = {f"weight{i}": name for i, name in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"weight_map": listed}))


def refused(folder: Path) -> DistillSpecError:
    with pytest.raises(DistillSpecError) as caught:
        model_files(folder)
    return caught.value


def names_of(files: ModelFiles) -> list[str]:
    return [file.relative_to(files.folder).as_posix() for file in files.weights]


# --- which files ---------------------------------------------------------------------------------


def test_one_file_is_the_model_and_variants_beside_it_are_not(folder: Path) -> None:
    put(folder, "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")
    files = model_files(folder)
    assert names_of(files) == ["model.safetensors"]
    assert (files.listing, files.notes) == (None, ())


def test_an_index_names_the_files_and_no_other_shard_is_taken(folder: Path) -> None:
    put(folder, *SHARDS, "model-00001-of-00003.safetensors", "consolidated.safetensors")
    put_index(folder, *SHARDS, SHARDS[0])
    files = model_files(folder)
    assert names_of(files) == list(SHARDS)
    assert files.listing == folder / INDEX


def test_an_older_file_beside_newer_shards_is_refused(folder: Path) -> None:
    put(folder, *SHARDS, "model.safetensors")
    put_index(folder, *SHARDS)
    error = refused(folder)
    assert "two models" in error.what
    assert "out of date" in error.fix


@pytest.mark.parametrize("shards", [SHARDS, SHARDS[1:], ["model-00001-of-00001.safetensors"]])
def test_an_older_file_beside_shards_that_wait_for_their_index_is_refused(
    folder: Path, shards: list[str]
) -> None:
    put(folder, *shards, "model.safetensors")  # an interrupted copy has no index yet
    error = refused(folder)
    assert f"two models: model.safetensors, and {shards[0]}" in error.what
    assert "finish the copy" in error.fix


def test_an_index_of_the_one_file_is_no_second_model(folder: Path) -> None:
    put(folder, "model.safetensors")
    put_index(folder, "model.safetensors")
    assert names_of(model_files(folder)) == ["model.safetensors"]
    put(folder, *SHARDS)
    assert names_of(model_files(folder)) == ["model.safetensors"]


def test_the_file_that_the_config_names_is_taken(folder: Path) -> None:
    put(folder, "model.safetensors", "other.safetensors")
    (folder / "config.json").write_text('{"transformers_weights": "other.safetensors"}')
    assert names_of(model_files(folder)) == ["other.safetensors"]


def test_an_adapter_beside_whole_weights_is_left_out_and_named(folder: Path) -> None:
    put(folder, "model.safetensors", "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    (note,) = model_files(folder).notes
    assert "adapter next to them (of org/base) is not" in note


def test_an_adapter_for_the_weights_beside_it_is_ambiguous(folder: Path) -> None:
    put(folder, "model.safetensors")
    adapter = {"base_model_name_or_path": str(folder)}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    error = refused(folder)
    assert "with or without" in error.what
    assert "merge" in error.fix


def test_an_adapter_alone_says_how_it_is_merged(folder: Path) -> None:
    put(folder, "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert "adapter alone" in refused(folder).what
    (folder / "config.json").unlink()
    error = refused(folder)
    assert "org/base" in error.what
    assert "merge_and_unload" in error.fix


def test_shards_without_an_index_and_a_variant_alone_are_named(folder: Path) -> None:
    put(folder, *SHARDS)
    assert SHARDS[0] in refused(folder).what
    for name in SHARDS:
        (folder / name).unlink()
    put(folder, "model.fp16.safetensors")
    error = refused(folder)
    assert "model.fp16.safetensors" in error.what
    assert "is to be called model.safetensors" in error.fix


def test_pickled_weights_alone_are_refused(folder: Path) -> None:
    put(folder, "pytorch_model.bin")
    assert "pickled (pytorch_model.bin)" in refused(folder).what


def test_a_folder_without_weights_says_so(folder: Path) -> None:
    assert "holds no weights" in refused(folder).what


def test_a_missing_shard_is_named(folder: Path) -> None:
    put_index(folder, *SHARDS)
    put(folder, SHARDS[0])
    assert f"1 of 2 weight files are missing: {SHARDS[1]}" in refused(folder).what


@pytest.mark.parametrize("content", ["[]", "{}", "{", '{"weight_map": {}}', '{"weight_map": 5}'])
def test_a_damaged_index_says_so(folder: Path, content: str) -> None:
    (folder / INDEX).write_text(content)
    assert INDEX in refused(folder).where


# --- names that lead out of the folder -----------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../w.safetensors", "a/../../w.safetensors", "/w.safetensors", "", 5, None, ["a"]]
)
def test_a_name_outside_of_the_folder_is_refused(folder: Path, name: object) -> None:
    put(folder.parent, "w.safetensors")
    put_index(folder, str(folder.parent / "w.safetensors") if name == "/w.safetensors" else name)
    assert "outside of the folder" in refused(folder).what
    (folder / INDEX).unlink()
    (folder / "config.json").write_text(json.dumps({"transformers_weights": name or "../x"}))
    assert "outside of the folder" in refused(folder).what


def test_a_name_that_is_no_safetensors_is_refused(folder: Path) -> None:
    put(folder, "pytorch_model.bin")
    put_index(folder, "pytorch_model.bin")
    assert "no safetensors" in refused(folder).what


def test_a_folder_inside_and_links_to_blobs_are_followed(folder: Path) -> None:
    put(folder, "part/model-1.safetensors")
    blob = folder.parent / "blob"
    blob.write_bytes(b"x")
    (folder / "model-2.safetensors").symlink_to("../blob")
    put_index(folder, "part/model-1.safetensors", "model-2.safetensors")
    assert names_of(model_files(folder)) == ["model-2.safetensors", "part/model-1.safetensors"]


# --- files that are none -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
@pytest.mark.parametrize("kind", ["folder", "named pipe", "link"])
def test_what_is_no_file_is_named_and_nothing_waits(folder: Path, name: str, kind: str) -> None:
    put(folder, "model.safetensors")
    (folder / name).unlink(missing_ok=True)
    if kind == "folder":
        (folder / name).mkdir()
    elif kind == "named pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("nowhere")
    error = refused(folder)
    assert name in error.what
    assert kind in error.what


def test_a_tokenizer_that_is_a_pipe_is_named_and_nothing_waits(folder: Path) -> None:
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(DistillSpecError, match="tokenizer.json is a named pipe"):
        check_tokenizer_files(folder)


@pytest.mark.parametrize("content", ["", "{'a': 1}", "[1]", "\x00\x01", "[" * 100_000])
def test_a_config_that_is_no_json_object_says_so(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(DistillSpecError, match="JSON"):
        read_config(folder)


def test_a_folder_without_config_or_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="no config.json"):
        model_files(tmp_path)
    with pytest.raises(DistillSpecError, match="no tokenizer"):
        check_tokenizer_files(tmp_path)


@contextmanager
def _as_another_user() -> Iterator[None]:
    """Root may read everything: as root, go on as `nobody` for a while."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", [".", "model", "model/config.json", "model/model.safetensors"])
def test_a_place_without_permission_says_so(closed: str) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        root.chmod(0o755)
        (root / "model").mkdir()
        (root / "model" / "config.json").write_text("{}")
        put(root / "model", "model.safetensors")
        (root / closed).chmod(0)
        with _as_another_user(), pytest.raises(DistillSpecError) as caught:
            assert not is_missing(str(root / "model"))
            model_files(model_folder(str(root / "model")))
        assert "cannot be read: Permission denied" in caught.value.what
        assert "permissions" in caught.value.fix
    finally:
        root.chmod(0o755)
        (root / "model").chmod(0o755)
        shutil.rmtree(root)


@pytest.mark.parametrize("path", ["nowhere", "a\0b", "model/config.json/deeper", "x" * 5000])
def test_a_path_where_nothing_is_is_missing(path: str) -> None:
    assert is_missing(path)
    with pytest.raises(DistillSpecError, match="does not exist"):
        model_folder(path)


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(DistillSpecError, match="is a file"):
        model_folder(str(folder / "config.json"))

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from distillspec import atomic
from distillspec.errors import DistillSpecError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_holds_the_text_and_nothing_else_is_left(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "new" / "a.txt", "é\n")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "é\n"
    assert names(tmp_path / "new") == ["a.txt"]


def test_json_is_written_readably(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"tau": 2.5, "name": "é"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"tau": 2.5, "name": "é"}
    assert "é" in text
    assert text.endswith("}\n")


def test_a_failure_in_the_middle_leaves_the_older_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    with pytest.raises(RuntimeError), atomic.replacing_file(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "draft"
    for content in ("old", "new"):
        with atomic.replacing_folder(path) as temporary:
            (temporary / content).write_text(content, encoding="utf-8")
    assert names(path) == ["new"]
    assert names(tmp_path) == ["draft"]


def test_a_failure_in_the_middle_leaves_the_older_folder_whole(tmp_path: Path) -> None:
    path = tmp_path / "draft"
    with atomic.replacing_folder(path) as temporary:
        (temporary / "a").write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), atomic.replacing_folder(path) as temporary:
        (temporary / "a").write_text("half", encoding="utf-8")
        raise RuntimeError
    assert (path / "a").read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["draft"]


def test_a_place_below_a_file_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DistillSpecError, match="cannot write here"):
        atomic.make_folder(tmp_path / "file" / "folder")
    with pytest.raises(DistillSpecError, match="cannot write here"):
        atomic.write_text(tmp_path / "file" / "a.txt", "text")


def test_a_disk_that_fills_up_while_writing_is_a_users_error(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with (
        pytest.raises(DistillSpecError, match="the disk is full") as caught,
        atomic.replacing_file(path),
        open("/dev/full", "w", encoding="utf-8", buffering=1) as full,
    ):
        full.write("one line\n")
    assert caught.value.where == str(path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "cannot write here"),
        (errno.EIO, "writing failed"),
    ],
)
def test_each_kind_of_failed_write_is_told_apart(code: int, what: str) -> None:
    error = atomic.explain(OSError(code, "reason"), Path("x"))
    assert what in error.what
    assert error.where == "x"


def test_a_replacement_killed_between_its_renames_is_undone(tmp_path: Path) -> None:
    (tmp_path / ".made.old").mkdir()
    (tmp_path / ".made.old" / "file").write_text("old")
    atomic.recover_folder(tmp_path / "made")
    assert (tmp_path / "made" / "file").read_text() == "old"
    assert not (tmp_path / ".made.old").exists()


def test_what_lies_aside_of_a_whole_folder_is_removed(tmp_path: Path) -> None:
    for name in ("made", ".made.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    atomic.recover_folder(tmp_path / "made")
    assert (tmp_path / "made" / "file").read_text() == "made"
    assert not (tmp_path / ".made.old").exists()

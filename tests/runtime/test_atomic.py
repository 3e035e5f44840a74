from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.runtime import atomic
from distillspec.runtime.os_errors import explain


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_holds_the_text_and_nothing_else_is_left(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "new" / "a.txt", "é\n")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "é\n"
    assert names(tmp_path / "new") == ["a.txt"]


def test_a_file_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers that hold the older file keep it whole, and a crash leaves one of the two."""
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    synced: list[str] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(path.read_text()), sync(file)))
    with path.open() as reader:
        atomic.write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert synced == ["old"]


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
        with atomic.replacing_folder(path, ("*",)) as temporary:
            (temporary / content).write_text(content, encoding="utf-8")
    assert names(path) == ["new"]
    assert names(tmp_path) == ["draft"]


def test_a_failure_in_the_middle_leaves_the_older_folder_whole(tmp_path: Path) -> None:
    path = tmp_path / "draft"
    with atomic.replacing_folder(path, ("*",)) as temporary:
        (temporary / "a").write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), atomic.replacing_folder(path, ("*",)) as temporary:
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


@pytest.mark.parametrize("exists", [True, False])
def test_a_users_folder_with_the_name_of_what_lies_aside_is_kept(
    tmp_path: Path, exists: bool
) -> None:
    aside = tmp_path / ".made.old"
    aside.mkdir()
    (aside / "diary.txt").write_text("years")
    if exists:
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "config.json").write_text("{}")
    with (
        pytest.raises(DistillSpecError, match=r"other files: diary\.txt") as caught,
        atomic.replacing_folder(tmp_path / "made", ("config.json",)),
    ):
        pass
    assert caught.value.where == str(aside)
    assert (aside / "diary.txt").read_text() == "years"
    assert (tmp_path / "made").exists() == exists


def test_a_hidden_file_of_the_user_is_no_folder_that_lies_aside(tmp_path: Path) -> None:
    (tmp_path / ".notes.old").write_text("years")
    atomic.tidy(tmp_path)
    assert names(tmp_path) == [".notes.old"]


def test_a_folder_with_foreign_files_is_not_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "sub").mkdir(parents=True)
    (mine / "thesis.tex").write_text("years")
    (mine / "sub" / "x").write_text("x")
    (mine / "config.json").write_text("{}")
    (mine / "away").symlink_to(tmp_path)
    with (
        pytest.raises(DistillSpecError, match=r"other files: away, sub/x, thesis\.tex"),
        atomic.replacing_folder(mine, ("config.json", "*.safetensors")),
    ):
        pass
    assert (mine / "thesis.tex").read_text() == "years"
    assert names(tmp_path) == ["mine"]


def test_foreign_files_that_came_meanwhile_are_kept(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    with (
        pytest.raises(DistillSpecError, match="other files: notes"),
        atomic.replacing_folder(mine, ("a",)) as temporary,
    ):
        (temporary / "a").write_text("new")
        mine.mkdir()
        (mine / "notes").write_text("kept")
    assert (mine / "notes").read_text() == "kept"


def test_links_are_followed_and_stay(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for name in ("folder", "file"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    for content in ("old", "new"):
        with atomic.replacing_folder(tmp_path / "folder", ("*",)) as temporary:
            (temporary / "a").write_text(content)
        atomic.write_text(tmp_path / "file", content)
    assert (tmp_path / "folder").is_symlink()
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "disk" / "folder" / "a").read_text() == "new"
    assert (tmp_path / "disk" / "file").read_text() == "new"
    assert names(tmp_path / "disk") == ["file", "folder"]


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DistillSpecError, match="this is none"):
        atomic.write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo()


def test_the_one_before_is_kept_where_a_place_is_given(tmp_path: Path) -> None:
    for content in ("1", "2", "3"):
        with atomic.replacing_file(tmp_path / "a", tmp_path / "a.before") as temporary:
            temporary.write_text(content)
        with atomic.replacing_folder(tmp_path / "b", ("*",), tmp_path / "b.before") as temporary:
            (temporary / "x").write_text(content)
    assert [(tmp_path / name).read_text() for name in ("a", "a.before")] == ["3", "2"]
    assert [(tmp_path / name / "x").read_text() for name in ("b", "b.before")] == ["3", "2"]
    assert names(tmp_path) == ["a", "a.before", "b", "b.before"]


_WRITER = """
import os, signal, sys
from pathlib import Path
from distillspec.runtime import atomic
folder = Path(sys.argv[1])
with atomic.replacing_file(folder / "a.txt") as file, \\
     atomic.replacing_folder(folder / "deep" / "made", ("*",)) as made:
    file.write_text("half")
    (made / "x").write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_deleted_and_what_a_live_one_writes_is_not(
    tmp_path: Path,
) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    (tmp_path / ".foreign.tmp").write_text("not ours")
    atomic.tidy(tmp_path)
    assert len(list(tmp_path.rglob(".*.tmp"))) == 3
    writer.communicate("now")
    assert len(list(tmp_path.rglob(".*.tmp"))) == 3
    atomic.tidy(tmp_path)
    assert [path.name for path in tmp_path.rglob(".*.tmp")] == [".foreign.tmp"]


def test_a_file_is_cleared_of_its_dead_writers_when_it_is_written(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".a.txt.{dead.pid}.tmp").write_text("half")
    (tmp_path / f".b.txt.{dead.pid}.tmp").write_text("half")
    atomic.write_text(tmp_path / "a.txt", "whole")
    assert names(tmp_path) == [f".b.txt.{dead.pid}.tmp", "a.txt"]


def test_a_folder_between_its_two_renames_is_put_back_by_tidying(tmp_path: Path) -> None:
    (tmp_path / "deep" / ".draft.old").mkdir(parents=True)
    (tmp_path / "deep" / ".draft.old" / "file").write_text("old")
    atomic.tidy(tmp_path)
    assert (tmp_path / "deep" / "draft" / "file").read_text() == "old"


def test_a_name_that_is_too_long_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="too long"):
        atomic.check_replaceable(tmp_path / ("x" * 300), ["*"])


@pytest.mark.parametrize("name", [".", "..", "/", "work/..", "/proc/self/cwd"])
def test_the_working_folder_and_those_it_lies_in_are_not_replaced(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(DistillSpecError, match="the working folder lies in it"):
        atomic.check_replaceable(Path(name), ["*"])
    with pytest.raises(DistillSpecError, match="this is none"):
        atomic.write_text(Path(name), "text")
    with pytest.raises(DistillSpecError), atomic.replacing_folder(Path(name), ["*"]):
        pass
    assert (tmp_path / "work" / "work").is_dir()


def test_a_link_to_itself_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DistillSpecError, match="symbolic links"):
        atomic.write_text(tmp_path / "loop", "text")
    with (
        pytest.raises(DistillSpecError, match="symbolic links"),
        atomic.replacing_folder(tmp_path / "loop", ["*"]),
    ):
        pass
    assert names(tmp_path) == ["loop"]


_WITHOUT_RIGHTS = """
import ctypes, struct, sys
from pathlib import Path
from distillspec.runtime import atomic
from distillspec.errors import DistillSpecError
libc, buffer = ctypes.CDLL(None), ctypes.create_string_buffer
header, sets = struct.pack("Ii", 0x20080522, 0), buffer(24)
libc.capget(buffer(header), sets)
words = list(struct.unpack("6I", sets.raw))
for one in (0, 1):
    words[one] &= ~0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
libc.capset(buffer(header), buffer(struct.pack("6I", *words)))
try:
    with atomic.replacing_folder(Path(sys.argv[1]), ["*"]) as made:
        (made / "new").write_text("new")
except DistillSpecError as error:
    print(error)
"""


def _replaced_by_one_without_rights(path: Path) -> str:
    command = [sys.executable, "-c", _WITHOUT_RIGHTS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("names_of", ["draft", ".draft.old"])
def test_a_folder_that_was_made_read_only_is_replaced(names_of: str, tmp_path: Path) -> None:
    old = tmp_path / names_of
    (old / "deep").mkdir(parents=True)
    (tmp_path / "draft").mkdir(exist_ok=True)
    (old / "deep" / "a").write_text("old")
    for folder in (old / "deep", old):
        folder.chmod(0o500)
    assert _replaced_by_one_without_rights(tmp_path / "draft") == ""
    assert names(tmp_path) == ["draft"]
    assert names(tmp_path / "draft") == ["new"]


def test_an_older_folder_that_cannot_be_deleted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "draft").mkdir()

    def refuses(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", refuses)
    with (
        pytest.raises(DistillSpecError, match="cannot be deleted: Permission denied") as caught,
        atomic.replacing_folder(tmp_path / "draft", ["*"]) as made,
    ):
        (made / "new").write_text("new")
    assert caught.value.where == str(tmp_path / ".draft.old")
    assert names(tmp_path / "draft") == ["new"]


def test_a_folder_in_the_way_is_said_to_be(tmp_path: Path) -> None:
    error = explain(OSError(errno.ENOTEMPTY, "Directory not empty"), tmp_path)
    assert "in the way" in error.what


@pytest.mark.parametrize("name", ["/".join(["c"] * 1900), "a\0b"])
def test_a_folder_that_cannot_be_made_is_a_users_error(name: str, tmp_path: Path) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)  # Python's own; some libraries raise it
    try:
        with pytest.raises(DistillSpecError, match="no folder can be made"):
            atomic.make_folder(tmp_path / name)
    finally:
        sys.setrecursionlimit(before)


def test_on_a_system_that_takes_no_writes_the_goal_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: object, *_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("os.open", refuses)
    monkeypatch.setattr("os.unlink", refuses)
    with pytest.raises(DistillSpecError, match="Read-only file system") as caught:
        atomic.write_text(tmp_path / "auto.yaml", "text")
    assert caught.value.where == str(tmp_path / "auto.yaml")


def test_nothing_is_written_below_a_watched_folder_that_is_gone(tmp_path: Path) -> None:
    def gone() -> None:
        raise DistillSpecError("deleted", where="-", fix="-")

    (tmp_path / "link").symlink_to(tmp_path / "run")
    with atomic.watched(tmp_path / "run", gone):
        for path in (tmp_path / "run" / "a", tmp_path / "run" / "b" / "a", tmp_path / "link" / "a"):
            with pytest.raises(DistillSpecError, match="deleted"):
                atomic.write_text(path, "text")
        atomic.write_text(tmp_path / "other", "text")
    assert names(tmp_path) == ["link", "other"]
    atomic.write_text(tmp_path / "run" / "a", "text")

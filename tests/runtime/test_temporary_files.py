"""Temporary files go with their writers, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from distillspec.runtime.temporary_files import remove_stale, scratch_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_hidden_files_of_the_user_are_no_temporary_files(tmp_path: Path) -> None:
    users = [".made.backup.tmp", ".made.2026-11-29.tmp", ".made.draft2.tmp"]
    ours = [".made.99999999.tmp", ".made.99999999_a1b2c3d4.tmp", ".made.a1b2c3d4.tmp"]
    for name in users + ours:
        (tmp_path / name).mkdir()
    remove_stale(tmp_path, "made")
    assert names(tmp_path) == sorted(users)


_SCRATCH = """
import os, signal, sys
from distillspec.runtime.temporary_files import scratch_folder
with scratch_folder("try") as folder:
    (folder / "file").write_text("kept while it works")
    print(folder, flush=True)
    if sys.stdin.readline() == "die\\n":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("word", ["die", "end"])
def test_a_scratch_folder_goes_with_its_process_or_with_the_next_one(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = subprocess.Popen(
        [sys.executable, "-c", _SCRATCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert first.stdout is not None
    folder = Path(first.stdout.readline().strip())
    with scratch_folder("try") as other:
        assert (folder / "file").is_file() and other != folder
    first.communicate(f"{word}\n")
    assert folder.exists() == (word == "die")
    with scratch_folder("try"):
        assert not folder.exists()
    assert not list(tmp_path.iterdir())


def test_what_another_user_left_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".a.txt.{dead.pid}.tmp"
    left.write_text("theirs")
    mine = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: mine + 1)
    remove_stale(tmp_path)
    assert left.exists()
    monkeypatch.undo()
    remove_stale(tmp_path)
    assert not left.exists()

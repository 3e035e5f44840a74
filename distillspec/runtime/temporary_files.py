"""Temporary files and folders that name their writer, so that those of dead writers can go."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The writer is its process id, with eight letters of mkdtemp for a folder; earlier versions had
# these alone. A hidden file with another word there is the user's.
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<writer>[0-9]+|(?:[0-9]+_)?[0-9a-z_]{8})\.tmp\Z")


@contextmanager
def scratch_folder(word: str) -> Iterator[Path]:
    """A folder in the system's temporary one, deleted at the end of the block.

    Args:
        word: What it is for. Folders of this word that killed processes left are deleted first.
    """
    name, place = f"distillspec-{word}", Path(tempfile.gettempdir())
    remove_stale(place, name)
    prefix = f".{name}.{os.getpid()}_"
    with (
        tempfile.TemporaryDirectory(prefix=prefix, suffix=".tmp", dir=place) as made,
        claimed(Path(made)),
    ):
        yield Path(made)


def remove_stale(folder: Path, name: str | None = None) -> None:
    """Delete temporary files and folders in `folder` whose writer has ended.

    Args:
        folder: Where to look; its subfolders are not searched.
        name: Only those of the file or folder with this name.
    """
    for found in list(os.scandir(folder)):
        match = _TEMPORARY.match(found.name)
        if match is None or name not in (None, match["name"]):
            continue
        if found.is_symlink() or _is_claimed(found.path, match["writer"]):
            continue
        # A shared folder such as /tmp has files of other users.
        if found.stat(follow_symlinks=False).st_uid != os.getuid():
            continue
        if found.is_dir():
            shutil.rmtree(found.path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(found.path)


@contextmanager
def claimed(temporary: Path) -> Iterator[None]:
    """Hold a lock on `temporary`, which the kernel frees when this process ends, however."""
    flags = os.O_RDONLY if temporary.is_dir() else os.O_RDWR | os.O_CREAT
    claim = os.open(temporary, flags | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(claim)


def _is_claimed(path: str, writer: str) -> bool:
    """Whether the writer may still be at work: its lock is held, or its process id is alive."""
    pid = writer.partition("_")[0]
    # An earlier process may have had our own id: then the lock decides.
    if pid.isdigit() and int(pid) != os.getpid() and _is_alive(int(pid)):
        return True
    try:
        claim = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # another user's, or gone
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(claim)
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True

"""A lock of a run folder: a second process that would write into it stops with an error."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.runtime.atomic import make_folder, tidy, watched
from distillspec.runtime.os_errors import explain

LOCK_FILE = ".lock"


class _Hold(NamedTuple):
    lock: IO[bytes]
    file: Path | None  # that the folder must hold

    @property
    def is_deleted(self) -> bool:
        """Deleting goes file by file: what is left of the folder may still be there."""
        # An open file without a link has been deleted.
        if os.fstat(self.lock.fileno()).st_nlink == 0:
            return True
        return self.file is not None and not os.path.lexists(self.file)


_held: dict[Path, _Hold] = {}  # by this process: a run may lock its folder and train in it


@contextmanager
def run_lock(
    folder: Path, on_wait: Callable[[str], None] | None = None, *, holds: str | None = None
) -> Iterator[None]:
    """Hold `folder` for this process. The kernel frees the lock when the process ends, however.

    What a killed process left unfinished in the folder is tidied up first. Re-entrant within a
    process.

    Args:
        folder: Is made if it is missing, unless `holds` names a file.
        on_wait: Called with the other process's id, before waiting for it; without this function a
            folder that another process holds is an error.
        holds: A file that is in the folder already. Without it, the folder has been deleted.

    Raises:
        DistillSpecError: Another process holds the folder, or the lock file cannot be written.
    """
    folder = (make_folder(folder) if holds is None else folder).resolve()
    if folder in _held:
        yield
        return
    # 1. Open for appending, because the content names the present holder.
    path = folder / LOCK_FILE
    try:
        handle = path.open("ab+", buffering=0)
    except OSError as error:
        raise explain(error, path) from error
    with handle:
        # 2. Take the lock. If it is taken, name its holder, then stop or wait.
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read().decode(errors="replace").strip() or "unknown"
            if on_wait is None:
                raise DistillSpecError(
                    f"another run (process {holder}) is using this folder",
                    where=str(folder),
                    fix="wait until it has finished, stop it, or start a new run",
                ) from error
            on_wait(holder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        # 3. Name this process as the holder.
        try:
            handle.truncate(0)
            handle.write(str(os.getpid()).encode())
        except OSError as error:
            raise explain(error, path) from error
        # 4. The folder may have been deleted before the lock was taken.
        hold = _Hold(handle, None if holds is None else folder / holds)
        if hold.is_deleted:
            # Opening may have created the lock file again, so it is removed.
            with suppress(OSError):
                path.unlink()
                folder.rmdir()
            raise _deleted(folder)
        _held[folder] = hold
        try:
            with watched(folder, lambda: check_still_there(folder)):
                tidy(folder)
                yield
        finally:
            del _held[folder]


def check_still_there(folder: Path) -> None:
    """Raise DistillSpecError if a folder that this process holds has been deleted meanwhile.

    Else the next file would make the folder again, without its recipe and checkpoints.
    """
    hold = _held.get(folder.resolve())
    if hold is not None and hold.is_deleted:
        raise _deleted(folder)


def _deleted(folder: Path) -> DistillSpecError:
    return DistillSpecError(
        "the run folder was deleted while it was in use",
        where=str(folder),
        fix="start a new run from the recipe",
    )

"""Writes that happen wholly or not at all: a temporary name beside the goal, then a rename."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distillspec.errors import DistillSpecError

_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def explain(error: OSError, where: Path) -> DistillSpecError:
    """The user's error behind a failed write at `where`."""
    if error.errno in _FULL:
        return DistillSpecError(
            "the disk is full; nothing was left half-written",
            where=str(where),
            mend="free some space, then go on: ./launch.sh RUN-FOLDER resumes a run, pretrain goes "
            "on with --resume, generate and compare with the same command",
        )
    if error.errno in _UNWRITABLE:
        return DistillSpecError(
            f"cannot write here: {error.strerror}",
            where=str(where),
            mend="choose a folder that you may write to, or mend its permissions",
        )
    return DistillSpecError(
        f"writing failed: {error.strerror}", where=str(where), mend="see the system's message above"
    )


def make_folder(path: Path) -> Path:
    """Create `path` with its parents; an unwritable place is a DistillSpecError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, path) from error
    return path


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes `path`'s name when the block ends well."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def recover_folder(path: Path) -> None:
    """Undo a replacement of the folder `path` that was killed between its two renames."""
    aside = _aside(path)
    if not aside.exists():
        return
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.replace(path)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it replaces `path` when the block ends well.

    An older folder at `path` stays whole until the new one is; it is moved aside, then deleted. A
    process killed just between the two leaves it aside: `recover_folder` puts it back.
    """
    make_folder(path.parent)
    aside = _aside(path)
    try:
        recover_folder(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise explain(error, path) from error
    try:
        temporary.chmod(0o755)
        yield temporary
        if path.exists():
            path.replace(aside)
        try:
            temporary.replace(path)
        except OSError:
            recover_folder(path)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def write_text(path: Path, text: str) -> None:
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

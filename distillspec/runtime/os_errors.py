"""The user's error behind what the operating system refused."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from distillspec.errors import DistillSpecError

_UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DEVICE = {errno.EROFS, errno.EIO, *_FULL}
_RUST = re.compile(r"\(os error (\d+)\)\Z")


def explain(error: OSError, where: Path) -> DistillSpecError:
    """The user's error behind a failed write at `where`."""
    if error.errno in _FULL:
        return DistillSpecError(
            "the disk is full; nothing was left half-written",
            where=str(where),
            fix="free some space, then resume: `distillspec run RUN-FOLDER` resumes a run, "
            "`pretrain --resume` a pretraining, and the same command `generate`, `compare` or "
            "`fetch`",
        )
    if error.errno in _UNWRITABLE:
        return DistillSpecError(
            f"cannot write here: {error.strerror}",
            where=str(where),
            fix="choose a folder that you may write to, or change its permissions",
        )
    if error.errno == errno.ENOENT:
        return DistillSpecError(
            "the folder of this file is gone, or never was",
            where=str(where),
            fix="make the folder; if it was deleted or moved while in use, put it back",
        )
    if error.errno == errno.ENOTEMPTY:
        return DistillSpecError(
            "a folder with this name is in the way",
            where=str(where),
            fix="move it away or delete it, then give the command again",
        )
    return DistillSpecError(
        f"writing failed: {error.strerror}",
        where=str(where),
        fix="check that the disk is mounted and healthy, or choose another folder, then repeat the "
        "command",
    )


def explain_any(error: Exception) -> DistillSpecError | None:
    """The user's error behind what the system refused anywhere; None for any other error.

    Libraries in Rust (tokenizers, safetensors) raise errors of their own, which end with the
    system's number. A failed write of standard output names no file.
    """
    number, name = getattr(error, "errno", None), getattr(error, "filename", None)
    if number is None and (match := _RUST.search(str(error))):
        number = int(match[1])
    if number is None or not (isinstance(error, OSError) or number in _DEVICE):
        return None
    # Standard output, or an error of a library in Rust.
    if not isinstance(name, str | bytes):
        if number not in _DEVICE:
            return None
        return explain(
            OSError(number, os.strerror(number)), Path("standard output, or a file of this command")
        )
    where = os.fsdecode(name)
    # A full or broken disk needs other advice than a wrong name.
    if number in _DEVICE:
        return explain(OSError(number, os.strerror(number)), Path(where))
    return DistillSpecError(
        f"the system refuses this file or folder: {os.strerror(number)}",
        where=where,
        fix="correct its name or its permissions, put back what was removed, or choose another",
    )

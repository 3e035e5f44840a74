"""Writes that happen entirely or not at all: a temporary name next to the goal, then a rename."""

from __future__ import annotations

import errno
import fcntl
import fnmatch
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distillspec.errors import DistillSpecError

Writes = Sequence[str] | Callable[[Path], None]  # see `check_replaceable`

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
_NAMED = 3  # files of a longer list
# The writer is its process id, with eight letters of mkdtemp for a folder; earlier versions had
# these alone. A hidden file with another word there is the user's.
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<writer>[0-9]+|(?:[0-9]+_)?[0-9a-z_]{8})\.tmp\Z")
_held: dict[Path, Callable[[], None]] = {}  # by `watched`


def explain(error: OSError, where: Path) -> DistillSpecError:
    """The user's error behind a failed write at `where`."""
    if error.errno in _FULL:
        return DistillSpecError(
            "the disk is full; nothing was left half-written",
            where=str(where),
            fix="free some space, then resume: `distillspec run RUN-FOLDER` resumes a run, "
            "`pretrain --resume` a pretraining, and the same command `generate` or `compare`",
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
    if not isinstance(name, str | bytes):
        if number not in _DEVICE:
            return None
        return explain(
            OSError(number, os.strerror(number)), Path("standard output, or a file of this command")
        )
    where = os.fsdecode(name)
    if number in _DEVICE:
        return explain(OSError(number, os.strerror(number)), Path(where))
    return DistillSpecError(
        f"the system refuses this file or folder: {os.strerror(number)}",
        where=where,
        fix="correct its name or its permissions, put back what was removed, or choose another",
    )


def make_folder(path: Path) -> Path:
    """Create `path` with its parents; an unwritable place is a DistillSpecError."""
    for folder, check in list(_held.items()):
        if Path(os.path.realpath(path)).is_relative_to(folder):
            check()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, path) from error
    except (RecursionError, ValueError) as error:  # thousands of levels, a null character
        reason = "too many levels" if isinstance(error, RecursionError) else str(error)
        raise DistillSpecError(
            f"no folder can be made here: {reason}", where=str(path), fix="name another folder"
        ) from error
    return path


@contextmanager
def watched(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Within, nothing is written into the real path `folder` before `check` has passed.

    Else a write would make a folder again that was deleted meanwhile.
    """
    _held[folder] = check
    try:
        yield
    finally:
        del _held[folder]


@contextmanager
def replacing_file(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it takes `path`'s name when the block ends well.

    A symbolic link is followed: the file that it names is replaced, and the link stays.

    Args:
        path: The file to write.
        previous: Where an older file at `path` is moved; None deletes it. A process killed between
            the two renames leaves `previous` complete.
    """
    goal = followed(path)
    make_folder(goal.parent)
    temporary = goal.parent / f".{goal.name}.{os.getpid()}.tmp"
    try:
        _check_regular(goal)
        remove_stale(goal.parent, goal.name)
        with _claimed(temporary):
            yield temporary
            with temporary.open("rb+") as handle:
                os.fsync(handle.fileno())
            if previous is not None and goal.exists():
                move(goal, previous)
            temporary.replace(goal)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        with suppress(OSError):  # a read-only system refuses even what is not there
            temporary.unlink()


def move(old: Path, new: Path) -> None:
    """Rename `old`, in place of a file or folder at `new`."""
    if new.is_dir() and not new.is_symlink():
        _remove(new)
    elif old.is_dir():
        new.unlink(missing_ok=True)
    old.replace(new)


def recover_folder(path: Path, writes: Writes = ("*",)) -> None:
    """Undo a replacement of the folder `path` that was killed between its two renames.

    Args:
        path: The folder that was being replaced.
        writes: As for `check_replaceable`. What holds anything else is not what a replacement moved
            aside, but a folder of the user's that has its name.

    Raises:
        DistillSpecError: There is such a folder. It has not been touched.
    """
    path = followed(path)
    aside = _aside(path)
    if aside.is_symlink() or not aside.is_dir():
        return
    check_replaceable(aside, writes)
    if path.exists():
        _remove(aside)
    else:
        aside.replace(path)


def _remove(folder: Path) -> None:
    """Delete `folder`, also where its files were made read-only.

    Raises:
        DistillSpecError: It names the folder, which no later write could replace.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    with suppress(OSError):
        folder.chmod(0o700)
        for root, folders, _ in os.walk(folder):
            for name in folders:
                if not os.path.islink(os.path.join(root, name)):
                    os.chmod(os.path.join(root, name), 0o700)
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise DistillSpecError(
            f"an older folder, moved aside, cannot be deleted: {error.strerror}",
            where=str(folder),
            fix="change the permissions of this folder or delete it, then repeat the command",
        ) from error


@contextmanager
def replacing_folder(path: Path, writes: Writes, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; it replaces `path` when the block ends well.

    An older folder at `path` stays complete until the new one is; then it is moved aside and
    deleted. A process killed just between the two leaves it aside: `recover_folder` puts it
    back. A symbolic link is followed.

    Args:
        path: The folder to write.
        writes: What the caller writes, as for `check_replaceable`, which refuses a folder that
            holds anything else.
        previous: As for `replacing_file`.
    """
    goal = followed(path)
    make_folder(goal.parent)
    aside = _aside(goal)
    try:
        recover_folder(goal, writes)
        if previous is None:
            check_replaceable(goal, writes)
        remove_stale(goal.parent, goal.name)
        prefix = f".{goal.name}.{os.getpid()}_"
        temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=goal.parent))
    except OSError as error:
        raise explain(error, path) from error
    try:
        temporary.chmod(0o755)
        with _claimed(temporary):
            yield temporary
            if previous is None:
                check_replaceable(goal, writes)
            if previous is not None and goal.exists():
                move(goal, previous)
            elif goal.exists():
                goal.replace(aside)
            try:
                temporary.replace(goal)
            except OSError:
                recover_folder(goal, writes)
                raise
            if aside.exists():
                _remove(aside)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(path: Path, writes: Writes) -> None:
    """Refuse a folder at `path` that holds files which its writer would not write again.

    Args:
        path: What would be replaced; it need not exist.
        writes: Patterns (`fnmatch`) of paths inside the folder, with `/` between their parts; or a
            function that raises DistillSpecError for a folder that its writer did not write.

    Raises:
        DistillSpecError: It names the foreign files. Nothing has been changed.
    """
    path = followed(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise DistillSpecError(
            "a folder is to be written here, and this is a file",
            where=str(path),
            fix="move the file away, or name another folder",
        )
    if Path.cwd().is_relative_to(path.resolve()):
        raise DistillSpecError(
            "this folder would be replaced, and the working folder lies in it",
            where=str(path),
            fix="name another folder",
        )
    if callable(writes):
        writes(path)
        return
    refuse_foreign(
        path,
        [name for name in names_in(path) if not any(fnmatch.fnmatchcase(name, p) for p in writes)],
    )


def names_in(folder: Path) -> list[str]:
    """Paths of all files and links anywhere in `folder`, sorted, with `/` between their parts."""
    return sorted(
        (Path(root) / name).relative_to(folder).as_posix()
        for root, folders, files in os.walk(folder)
        for name in [
            *files,
            *(folder_name for folder_name in folders if (Path(root) / folder_name).is_symlink()),
        ]
    )


def refuse_foreign(folder: Path, names: Sequence[str]) -> None:
    """DistillSpecError if there are `names` of files in `folder` which are not the writer's."""
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise DistillSpecError(
            "this folder would be replaced, and it holds other files: "
            f"{', '.join(names[:_NAMED])}{more}",
            where=str(folder),
            fix="move these files away, or name another folder",
        )


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
        _claimed(Path(made)),
    ):
        yield Path(made)


# --- what killed processes left ------------------------------------------------------------------


def tidy(folder: Path) -> None:
    """Undo what writers that were killed left anywhere below `folder`.

    Folders that were moved aside are put back, temporary files of dead writers are deleted. To be
    called by the process that holds `folder`; a live writer's files stay.
    """
    for root, folders, files in os.walk(folder):
        for name in [n for n in (*folders, *files) if n.startswith(".") and n.endswith(".old")]:
            recover_folder(Path(root) / name[1:-4])
        remove_stale(Path(root))


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
        if found.stat(follow_symlinks=False).st_uid != os.getuid():
            continue
        if found.is_dir():
            shutil.rmtree(found.path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(found.path)


@contextmanager
def _claimed(temporary: Path) -> Iterator[None]:
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


def followed(path: Path) -> Path:
    """Where a symbolic link, `.` or `..` at `path` leads; `path` itself where it is none."""
    try:
        return path.resolve() if path.is_symlink() or path.name in ("", "..") else path
    except OSError as error:  # a name that is too long, a folder that may not be searched
        raise explain(error, path) from error
    except RuntimeError as error:  # what Python 3.11 says of a link to itself
        raise explain(OSError(errno.ELOOP, os.strerror(errno.ELOOP)), path) from error


def _check_regular(path: Path) -> None:
    """A device or pipe is not replaced by a file."""
    if path.exists() and not path.is_file():
        raise DistillSpecError(
            "a file is to be written here, and this is none",
            where=str(path),
            fix="name another file",
        )


def _aside(path: Path) -> Path:
    return path.parent / f".{path.name}.old"


def write_text(path: Path, text: str) -> None:
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

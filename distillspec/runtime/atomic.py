"""Writes that happen entirely or not at all: a temporary name next to the goal, then a rename."""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distillspec.errors import DistillSpecError
from distillspec.runtime.os_errors import explain
from distillspec.runtime.temporary_files import claimed, remove_stale

Writes = Sequence[str] | Callable[[Path], None]  # see `check_replaceable`

_NAMED = 3  # files of a longer list
_held: dict[Path, Callable[[], None]] = {}  # by `watched`


def make_folder(path: Path) -> Path:
    """Create `path` with its parents; an unwritable place is a DistillSpecError."""
    # Otherwise mkdir would recreate a folder that was deleted while in use.
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
    # The process id tells later writers whether this one is still alive.
    temporary = goal.parent / f".{goal.name}.{os.getpid()}.tmp"
    try:
        _check_regular(goal)
        remove_stale(goal.parent, goal.name)
        with claimed(temporary):
            yield temporary
            # Without fsync before the rename, a crash could leave an empty file.
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
    # A rename cannot replace a non-empty folder, nor put a folder in place of a file.
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
        # The process was killed after the second rename: the new folder is complete.
        _remove(aside)
    else:
        # It was killed between the two renames: only the older folder exists.
        aside.replace(path)


def _remove(folder: Path) -> None:
    """Delete `folder`, also where its files were made read-only.

    Raises:
        DistillSpecError: It names the folder, which no later write could replace.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    # Second try: deleting a file needs write permission for its folder.
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
        # mkdtemp makes folders that only their owner can read.
        temporary.chmod(0o755)
        with claimed(temporary):
            yield temporary
            # Checked again, because files may have come into the folder meanwhile.
            if previous is None:
                check_replaceable(goal, writes)
            # A rename cannot replace a non-empty folder, so the older one is moved first.
            if previous is not None and goal.exists():
                move(goal, previous)
            elif goal.exists():
                goal.replace(aside)
            try:
                temporary.replace(goal)
            except OSError:
                # Puts back an older folder that was moved aside. One at `previous` stays there.
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
    # Otherwise this process would go on in a folder that was deleted.
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


def tidy(folder: Path) -> None:
    """Undo what writers that were killed left anywhere below `folder`.

    Folders that were moved aside are put back, temporary files of dead writers are deleted. To be
    called by the process that holds `folder`; a live writer's files stay.
    """
    for root, folders, files in os.walk(folder):
        for name in [n for n in (*folders, *files) if n.startswith(".") and n.endswith(".old")]:
            recover_folder(Path(root) / name[1:-4])
        remove_stale(Path(root))


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

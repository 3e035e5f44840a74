"""Tensors and plain values in a file, which is written completely or not at all.

A file ends with the SHA-256 of its content, so that reading detects damage before it uses a value.
`torch.load` ignores this end, and loads without running code. A DeepSpeed checkpoint is a folder;
one of its files holds the checksums. The checkpoint before the newest stays on disk and replaces
the newest if that is damaged.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from distillspec.errors import DistillSpecError
from distillspec.runtime.atomic import move, replacing_file, write_json

log = logging.getLogger(__name__)

POSITION = "position.ckpt"  # in a DeepSpeed folder: readable before DeepSpeed is set up
SUMS = "sums.json"  # in a DeepSpeed folder: SHA-256 of each other file

_MARK = b"\ndistillspec sha256 "
_HEX = 64
_END_OF_ZIP = b"PK\x05\x06"  # begins the last 22 bytes of what torch.save writes
_PIECE = 1 << 22
_THREADS = 8

_verified: set[tuple[str, int, int, int]] = set()  # files that this process has verified


class DamagedStateError(DistillSpecError):
    """The content of a checkpoint differs from what was written."""


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoint files, written by `write_state` and read by `read_state`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        write_state(checkpoint, Path(path), previous_of(Path(path)))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_state(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


class _Sink(io.RawIOBase):
    """A file that hashes what is written and stores the first failure.

    torch.save would report another reason for the failure.
    """

    def __init__(self, handle: IO[bytes]) -> None:
        super().__init__()
        self._handle = handle
        self.failure: OSError | None = None
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            written: int = self._handle.write(data)
        except OSError as error:
            # Keep the first failure: later ones follow from it.
            self.failure = self.failure or error
            raise
        return written

    def flush(self) -> None:
        if self.failure is None:
            self._handle.flush()


def previous_of(path: Path) -> Path:
    """Path of the checkpoint before the one at `path`: last.previous.ckpt for last.ckpt."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write_state(state: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write `state` with its checksum, completely or not at all.

    Args:
        state: Tensors and plain values.
        path: The file.
        previous: Path that an older file at `path` moves to; None deletes it.

    Raises:
        DistillSpecError: The disk is full.
    """
    with replacing_file(path, previous) as temporary, temporary.open("wb") as handle:
        sink = _Sink(handle)
        try:
            torch.save(state, cast(IO[bytes], sink))
            handle.write(_MARK + sink.digest.hexdigest().encode() + b"\n")
        except (OSError, RuntimeError) as error:
            # torch.save hides the cause: report a full disk or an interrupt as such.
            if sink.failure is not None:
                raise sink.failure from None
            interrupt = _interrupt_behind(error)
            if interrupt is not None:
                raise interrupt from None
            raise


def _interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The interrupt that torch.save has replaced by an error about its incomplete archive."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause


def read_state(path: Path, needs: Iterable[str] = ()) -> dict[str, Any]:
    """Read a state of `write_state` onto the CPU.

    Args:
        path: The file.
        needs: Keys that the state must have.

    Raises:
        DamagedStateError: The file is damaged, or is no checkpoint of distillspec.
        DistillSpecError: There is no such file.
    """
    verify(path)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _damaged(path, "it holds more than tensors and plain values") from error
    except Exception as error:  # torch raises many kinds for a file that it did not write
        raise _damaged(path, "torch cannot read it") from error
    lacking = [key for key in needs if not isinstance(state, dict) or key not in state]
    if lacking:
        raise _damaged(path, f"it has no {lacking[0]!r}")
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Turn the errors of loading a state of unexpected content into a DamagedStateError.

    Args:
        path: The checkpoint that the state comes from.

    Raises:
        DamagedStateError: The content is not what this version of distillspec writes.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise _damaged(path, f"its content is of another kind ({type(error).__name__})") from error
    except (RuntimeError, ValueError) as error:
        raise _damaged(path, f"its content does not fit ({type(error).__name__})") from error


def verify(path: Path) -> None:
    """Compare a checkpoint, a file or a folder, with its checksums.

    A checkpoint of an earlier version has no checksum; a log line reports it.

    Raises:
        DamagedStateError: They differ.
        DistillSpecError: There is no such file, or it cannot be read.
    """
    try:
        if not path.is_dir():
            _verify_file(path)
        elif (path / SUMS).exists():
            _verify_folder(path)
        elif not (path / POSITION).exists():
            raise _damaged(path, f"it is a folder without {POSITION}")
        else:
            _note_without_sum(path)
    except FileNotFoundError as error:
        raise DistillSpecError(
            "there is no such checkpoint", where=str(path), fix="start a new run"
        ) from error
    except OSError as error:
        raise DistillSpecError(
            f"the checkpoint cannot be read: {error.strerror}",
            where=str(path),
            fix="check its permissions and the disk",
        ) from error


def settle(path: Path) -> None:
    """Move the newest undamaged checkpoint to `path`, if there is any; a log line reports a move.

    A damaged checkpoint gets another name, and the checkpoint before replaces it. Call this in one
    process, before any process reads the checkpoint.

    Raises:
        DamagedStateError: The checkpoint is damaged, and so is the one before, or it is missing.
    """
    previous = previous_of(path)
    if not path.exists():
        if previous.exists():  # killed between two renames
            previous.replace(path)
        return
    try:
        verify(path)
    except DamagedStateError as error:
        if not previous.exists():
            raise
        # Nothing is moved unless the checkpoint before is undamaged.
        verify(previous)
        aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
        move(path, aside)
        previous.replace(path)
        log.warning(
            "%s: %s. It is renamed to %s, and the run resumes from the checkpoint before",
            path,
            error.what,
            aside.name,
        )


def file_sums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 (hex) of files in `folder`, by name."""
    names = list(names)
    with ThreadPoolExecutor(_THREADS) as pool:  # hashlib releases Python's global lock
        return dict(zip(names, pool.map(lambda name: _sum(folder / name), names), strict=True))


def files_in(folder: Path) -> list[str]:
    """The files of a checkpoint folder that have a checksum, sorted by name."""
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in names if name != SUMS)


def write_sums(folder: Path, sums: dict[str, str]) -> None:
    write_json(folder / SUMS, sums)


def _verify_file(path: Path) -> None:
    stat = path.stat()
    # Hashing a checkpoint takes seconds: each version of a file is verified once per process.
    identity = (str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if identity in _verified:
        return
    if not stat.st_size:
        raise _damaged(path, "it is empty")
    # The file ends with the mark, the hex digest and a line break.
    length = len(_MARK) + _HEX + 1
    with path.open("rb") as handle:
        handle.seek(max(0, stat.st_size - length))
        end = handle.read()
    if end.startswith(_MARK):
        if f"{_sum(path, stat.st_size - length)}\n".encode() != end[len(_MARK) :]:
            raise _damaged(path, "its checksum differs")
    # A complete archive without a mark: an earlier version wrote it.
    elif end[-22:-18] == _END_OF_ZIP:
        _note_without_sum(path)
    else:
        raise _damaged(path, "its end is missing or damaged")
    _verified.add(identity)


def _verify_folder(folder: Path) -> None:
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        expected = set(sums)
    except (ValueError, TypeError) as error:
        raise _damaged(folder, f"{SUMS} cannot be read") from error
    # Missing and unexpected files are damage too, not only changed ones.
    names = files_in(folder)
    if expected != set(names):
        raise _damaged(folder, f"{sorted(expected ^ set(names))[0]} is missing or unexpected")
    differing = [name for name, value in file_sums(folder, names).items() if value != sums[name]]
    if differing:
        raise _damaged(folder, f"the checksum of {differing[0]} differs")


def _sum(path: Path, length: int | None = None) -> str:
    """SHA-256 (hex) of the first `length` bytes, or of all if None."""
    digest, left = hashlib.sha256(), path.stat().st_size if length is None else length
    with path.open("rb") as handle:
        while left > 0 and (piece := handle.read(min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


def _note_without_sum(path: Path) -> None:
    log.info("%s has no checksum: an earlier version wrote it", path)


def _damaged(path: Path, why: str) -> DamagedStateError:
    return DamagedStateError(
        f"not a checkpoint that can be used: {why}",
        where=str(path),
        fix="restore it from a copy; or delete it with the other *.ckpt and *.pt files of its "
        "folder and start the run again, which then trains from step 0",
    )

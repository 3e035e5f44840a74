"""Files that only grow, line by line: a line is on the disk before the next one is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from distillspec.runtime.os_errors import explain
from distillspec.runtime.plain_files import check_regular

Append = Callable[[list[dict[str, Any]]], None]
_CHUNK = 2**16


@contextmanager
def appending(path: Path) -> Iterator[Append]:
    """Yield a function that adds records; they are on the disk when it returns.

    A last line that a killed process left unfinished is removed first. Records that cannot be
    written completely, on a full disk, leave nothing behind.

    Raises:
        DistillSpecError: The file cannot be read or written, or is no regular file.
    """
    _check(path)
    try:
        # Unbuffered: a write either reaches the system or raises here.
        with path.open("a+b", buffering=0) as handle:
            handle.truncate(_whole_lines(handle))

            def append(records: list[dict[str, Any]]) -> None:
                _write(
                    handle,
                    b"".join(json.dumps(record).encode() + b"\n" for record in records),
                    path,
                )

            yield append
    except OSError as error:
        raise explain(error, path) from error


def add_lines(path: Path, text: str) -> None:
    """Add lines to a file and see them safely on the disk; all of them, or none.

    Raises:
        DistillSpecError: The file cannot be written, or is no regular file.
    """
    _check(path)
    try:
        with path.open("ab", buffering=0) as handle:
            _write(handle, text.encode(), path)
    except OSError as error:
        raise explain(error, path) from error


def _check(path: Path) -> None:
    # Opening a named pipe would wait for a reader for ever.
    check_regular(path, "the file to append to", "name another file, or move this one away")


def _write(handle: FileIO, data: bytes, path: Path) -> None:
    size = handle.seek(0, os.SEEK_END)
    left = memoryview(data)
    try:
        # An unbuffered write may take only a part.
        while left:
            left = left[handle.write(left) :]
        os.fsync(handle.fileno())
    except BaseException as error:
        # BaseException includes Ctrl-C: no half line may stay.
        with suppress(OSError):
            handle.truncate(size)
        if isinstance(error, OSError):
            raise explain(error, path) from error
        raise


def _whole_lines(handle: FileIO) -> int:
    """Bytes up to the end of the last complete line."""
    end = handle.seek(0, os.SEEK_END)
    # From the end and in chunks, because the file may be large.
    while end:
        start = max(0, end - _CHUNK)
        handle.seek(start)
        place = handle.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0

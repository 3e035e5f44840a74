"""Files of JSON lines that only grow: a line is on the disk before the next one is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distillspec.atomic import explain

Append = Callable[[list[dict[str, Any]]], None]


@contextmanager
def appending(path: Path) -> Iterator[Append]:
    """Yield a function that adds records; they are on the disk when it returns.

    A last line that a killed process left unfinished is removed first.

    Raises:
        DistillSpecError: The file cannot be read or written.
    """
    try:
        with path.open("a+b") as handle:
            handle.seek(0)
            whole = handle.read().rpartition(b"\n")
            handle.truncate(len(whole[0]) + len(whole[1]))

            def append(records: list[dict[str, Any]]) -> None:
                try:
                    handle.write(b"".join(json.dumps(one).encode() + b"\n" for one in records))
                    handle.flush()
                    os.fsync(handle.fileno())
                except OSError as error:
                    raise explain(error, path) from error

            yield append
    except OSError as error:
        raise explain(error, path) from error

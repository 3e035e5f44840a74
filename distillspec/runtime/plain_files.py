"""Readers of small files: text, JSON, JSON lines and CSV, of bounded size and known type.

A file of a run folder or a store may be damaged, edited, of another version, or no file at all (a
named pipe would block for ever). Whatever is wrong with it is one DistillSpecError that names the
file, the place in it, and what the caller says is to be done.
"""

from __future__ import annotations

import csv
import io
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from distillspec.errors import DistillSpecError
from distillspec.runtime.typed import MistypedError, TypedReader, typed

_Form = TypeVar("_Form")
_MOST_BYTES = 64 * 2**20
_MOST_LINE_BYTES = 4 * 2**30
_STRICT = TypedReader()
_DEEPEST = 64  # levels of nesting; ours have six


class BoundedText(NamedTuple):
    """A file, for errors.

    Attributes:
        path: The file.
        what: What it is, such as `the plan of this evaluation`.
        fix: What to do if it cannot be read.
    """

    path: Path
    what: str
    fix: str

    def record(
        self, form: type[_Form], value: Any, place: str = "", reading: TypedReader = _STRICT
    ) -> _Form:
        """`value`, which stands at `place` of the file, checked and converted by `typed.typed`."""
        try:
            return typed(form, value, reading)
        except MistypedError as error:
            raise self.fault(str(error), place) from error

    def fault(self, why: str, place: str = "") -> DistillSpecError:
        where = f"{self.path}{f', {place}' if place else ''}"
        return DistillSpecError(f"{self.what} cannot be read: {why}", where=where, fix=self.fix)


def read_bytes(kept: BoundedText, most: int = _MOST_BYTES) -> bytes:
    """All of a regular file."""
    try:
        about = kept.path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise kept.fault(f"it is {_kind(about.st_mode)}, not a file")
        if about.st_size > most:
            raise kept.fault(f"{about.st_size:,} bytes are more than {most:,}")
        return kept.path.read_bytes()
    except (OSError, ValueError) as error:
        raise kept.fault(getattr(error, "strerror", None) or str(error)) from error


def read_text(kept: BoundedText, most: int = _MOST_BYTES) -> str:
    """All of a file in UTF-8; a byte order mark is passed over."""
    try:
        return read_bytes(kept, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise kept.fault("it is not text in UTF-8", f"byte {error.start}") from error


def read_json(kept: BoundedText, form: type[_Form], reading: TypedReader = _STRICT) -> _Form:
    """The value of a JSON file as a `form`."""
    return kept.record(form, _parsed(read_text(kept), kept, ""), reading=reading)


def read_lines(
    kept: BoundedText, *, unfinished: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and mapping of each JSON line.

    unfinished: a last line without its end, which a killed process left, is passed over.
    """
    lines = read_bytes(kept, _MOST_LINE_BYTES).split(b"\n")
    # The text after the last line break is a line without its end.
    last = lines.pop()
    if last and not unfinished:
        lines.append(last)
    for number, line in enumerate(lines, start=1):
        place = f"line {number}"
        yield place, kept.record(dict[str, Any], _parsed(line, kept, place), place)


def _parsed(text: str | bytes, kept: BoundedText, place: str) -> Any:
    try:
        value = json.loads(text)
        _check_plain(value)
    except MistypedError as error:
        raise kept.fault(str(error), place) from error
    except RecursionError as error:
        raise kept.fault("it is nested too deep", place) from error
    except ValueError as error:
        raise kept.fault(f"it is not JSON ({error})", place) from error
    return value


def read_csv(kept: BoundedText) -> list[dict[str, float]]:
    """The rows of a CSV file of numbers, by its header, without its empty cells.

    A last row of another length, which a killed process left, is passed over.
    """
    rows = csv.reader(io.StringIO(read_text(kept), newline=""), strict=True)
    found, unfinished = [], ""
    try:
        header = next(rows, [])
        for row in rows:
            place = f"line {rows.line_num}"
            # Only the last row may have another length.
            if unfinished:
                raise kept.fault(f"it has not {len(header)} cells", unfinished)
            if len(row) == len(header):
                cells = zip(header, row, strict=True)
                found.append({name: _number(text, kept, place) for name, text in cells if text})
            else:
                unfinished = place
    except csv.Error as error:
        raise kept.fault(f"it is not CSV ({error})", f"line {rows.line_num}") from error
    return found


def _number(text: str, kept: BoundedText, place: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise kept.fault(f"{text[:40]!r} is no number", place) from error


def check_regular(path: Path, what: str, fix: str) -> None:
    """DistillSpecError for what exists and is no regular file, such as a named pipe."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DistillSpecError(f"{what} cannot be read: {why}", where=str(path), fix=fix) from error
    if not stat.S_ISREG(mode):
        raise DistillSpecError(f"{what} is {_kind(mode)}, not a file", where=str(path), fix=fix)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def _check_plain(value: Any) -> None:
    """ValueError for nesting without end, and for text that no file can hold."""
    # A stack, because deep nesting would exceed Python's recursion limit.
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > _DEEPEST:
            raise MistypedError("it is nested too deep")
        if isinstance(item, dict):
            waiting += [(key, depth) for key in item]
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]
        elif isinstance(item, str) and any("\ud800" <= letter <= "\udfff" for letter in item):
            raise MistypedError("it holds half of a surrogate pair, which is no character")

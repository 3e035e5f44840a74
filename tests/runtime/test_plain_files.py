from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from distillspec.errors import DistillSpecError
from distillspec.runtime.plain_files import (
    BoundedText,
    check_regular,
    read_bytes,
    read_csv,
    read_json,
    read_lines,
    read_text,
)


class Record(NamedTuple):
    steps: int


@pytest.fixture
def kept(tmp_path: Path) -> BoundedText:
    return BoundedText(tmp_path / "record.json", "the record", "delete it")


def refusal(read: Callable[[], Any]) -> DistillSpecError:
    with pytest.raises(DistillSpecError) as caught:
        read()
    error = caught.value
    assert error.what.startswith("the record cannot be read: ")
    assert error.fix == "delete it"
    return error


def test_a_record_is_read_and_a_byte_order_mark_passed_over(kept: BoundedText) -> None:
    kept.path.write_bytes(b'\xef\xbb\xbf{"steps": 3}\n')
    assert read_json(kept, Record) == Record(3)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is not JSON"),
        (b'{"steps": 3', "it is not JSON"),
        (b"\xff\xfe", "it is not text in UTF-8"),
        (b"[" * 100_000, "it is nested too deep"),
        (b"[" * 100 + b"]" * 100, "it is nested too deep"),
        (b"1" * 5000, "it is not JSON"),
        (b"null", "its content must be a mapping, not null"),
        (b'{"steps": "3"}', "'steps' must be a whole number, not text"),
        (b'{"steps": 3, "\\ud800": 1}', "half of a surrogate pair"),
        (b"{}", "'steps' is missing"),
    ],
)
def test_wrong_content_is_one_error_that_names_the_file(
    content: bytes, why: str, kept: BoundedText
) -> None:
    kept.path.write_bytes(content)
    error = refusal(lambda: read_json(kept, Record))
    assert why in error.what
    assert error.where.startswith(str(kept.path))


def test_what_is_no_file_is_refused_without_waiting_for_it(
    kept: BoundedText, tmp_path: Path
) -> None:
    for make, says in (
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (lambda path: path.symlink_to("x" * 300), "too long"),
    ):
        kept.path.unlink(missing_ok=True) if not kept.path.is_dir() else kept.path.rmdir()
        make(kept.path)
        assert says in refusal(lambda: read_text(kept)).what
    other = kept._replace(path=tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(other.path))
        assert "a socket" in refusal(lambda: read_text(other)).what
    assert "null byte" in refusal(lambda: read_text(kept._replace(path=Path("a\0")))).what


def test_more_bytes_than_expected_are_not_read(kept: BoundedText) -> None:
    kept.path.write_bytes(b"12345")
    assert read_bytes(kept, most=5) == b"12345"
    assert "5 bytes are more than 4" in refusal(lambda: read_bytes(kept, most=4)).what


def test_lines_come_with_their_place(kept: BoundedText) -> None:
    kept.path.write_bytes(b'{"a": 1}\n{"a": 2}')
    assert list(read_lines(kept)) == [("line 1", {"a": 1}), ("line 2", {"a": 2})]
    assert list(read_lines(kept, unfinished=True)) == [("line 1", {"a": 1})]
    kept.path.write_bytes(b'{"a": 1}\n[2]\n')
    error = refusal(lambda: list(read_lines(kept, unfinished=True)))
    assert error.where == f"{kept.path}, line 2"
    assert "must be a mapping" in error.what


def test_a_table_of_numbers_is_read_by_its_header(kept: BoundedText) -> None:
    kept.path.write_text("step,loss,alpha\n1,0.5,\n2,,nan\n3,0.")
    first, second = read_csv(kept)
    assert first == {"step": 1.0, "loss": 0.5}
    assert second["step"] == 2.0 and second.keys() == {"step", "alpha"}
    kept.path.write_text("")
    assert read_csv(kept) == []


@pytest.mark.parametrize(
    ("content", "where", "why"),
    [
        (b"step,loss\n1,x\n", "line 2", "'x' is no number"),
        (b"step,loss\n1\n2,3\n", "line 2", "it has not 2 cells"),
        (b'step,loss\n1,"x\n', "line 2", "it is not CSV"),
        (b"step,loss\n\xff\n", "byte 10", "it is not text in UTF-8"),
    ],
)
def test_a_fault_of_a_table_names_its_line(
    content: bytes, where: str, why: str, kept: BoundedText
) -> None:
    kept.path.write_bytes(content)
    error = refusal(lambda: read_csv(kept))
    assert error.where == f"{kept.path}, {where}"
    assert why in error.what


def test_a_regular_file_or_none_passes_and_a_pipe_does_not(tmp_path: Path) -> None:
    check_regular(tmp_path / "none", "the data file", "give a file")
    (tmp_path / "file").write_text("")
    check_regular(tmp_path / "file", "the data file", "give a file")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DistillSpecError, match="the data file is a named pipe, not a file"):
        check_regular(tmp_path / "pipe", "the data file", "give a file")

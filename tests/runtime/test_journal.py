from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.runtime.journal import add_lines, appending
from distillspec.runtime.plain_files import BoundedText, read_lines
from tests.full_disk import no_file_larger_than


def lines(path: Path) -> list[dict[str, Any]]:
    kept = BoundedText(path, "this journal", "delete it")
    return [line for _, line in read_lines(kept, unfinished=True)]


def test_records_are_on_the_disk_when_they_are_added(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    with appending(path) as append:
        append([{"a": 1}, {"b": "é"}])
        assert lines(path) == [{"a": 1}, {"b": "é"}]
    with appending(path) as append:
        append([{"c": 2}])
    assert len(lines(path)) == 3


def test_an_unfinished_last_line_is_not_read_and_is_removed_before_the_next(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lines.jsonl"
    for unfinished in (b'{"b": ', b'{"b": 1}'):
        path.write_bytes(b'{"a": 1}\n' + unfinished)
        assert lines(path) == [{"a": 1}]
        with appending(path) as append:
            append([{"c": 2}])
        assert path.read_bytes() == b'{"a": 1}\n{"c": 2}\n'


def test_a_folder_cannot_be_appended_to(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError), appending(tmp_path):
        pass


def test_lines_that_do_not_fit_leave_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    with (
        no_file_larger_than(20),
        pytest.raises(DistillSpecError, match="writing failed: File too large"),
    ):
        add_lines(path, '{"b": "much longer"}\n')
    with no_file_larger_than(20), appending(path) as append, pytest.raises(DistillSpecError):
        append([{"b": "much longer"}])
    assert path.read_bytes() == b'{"a": 1}\n'
    add_lines(path, '{"c": 2}\n')
    assert lines(path) == [{"a": 1}, {"c": 2}]


def test_a_last_whole_line_is_found_however_long_the_unfinished_one_is(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for whole in (b"", b'{"a": 1}\n'):
        path.write_bytes(whole + b"x" * 200_000)
        with appending(path):
            pass
        assert path.read_bytes() == whole


def test_a_named_pipe_is_refused_and_does_not_wait_for_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DistillSpecError, match="the file to append to is a named pipe"):
        add_lines(tmp_path / "pipe", "{}\n")
    with (
        pytest.raises(DistillSpecError, match="a named pipe"),
        appending(tmp_path / "pipe"),
    ):
        pass

from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.corpus.journal import appending, complete_lines
from distillspec.errors import DistillSpecError


def test_records_are_on_the_disk_when_they_are_added(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    with appending(path) as append:
        append([{"a": 1}, {"b": "é"}])
        assert complete_lines(path) == [b'{"a": 1}', b'{"b": "\\u00e9"}']
    with appending(path) as append:
        append([{"c": 2}])
    assert len(complete_lines(path)) == 3


def test_an_unfinished_last_line_is_not_read_and_is_removed_before_the_next(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": ')
    assert complete_lines(path) == [b'{"a": 1}']
    with appending(path) as append:
        append([{"c": 2}])
    assert path.read_bytes() == b'{"a": 1}\n{"c": 2}\n'


def test_a_file_that_cannot_be_read_or_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="cannot be read"):
        complete_lines(tmp_path / "missing.jsonl")
    with pytest.raises(DistillSpecError), appending(tmp_path):
        pass

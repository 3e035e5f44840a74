from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillspec.corpus.journal import appending
from distillspec.errors import DistillSpecError
from distillspec.plain_files import Kept, read_lines


def lines(path: Path) -> list[dict[str, Any]]:
    kept = Kept(path, "this journal", "delete it")
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

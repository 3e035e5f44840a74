"""What the system refuses is an error that a user can act on."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from distillspec.runtime.os_errors import explain, explain_any


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "cannot write here"),
        (errno.EIO, "writing failed"),
    ],
)
def test_each_kind_of_failed_write_is_told_apart(code: int, what: str) -> None:
    error = explain(OSError(code, "reason"), Path("x"))
    assert what in error.what
    assert error.where == "x"


def test_a_folder_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    assert "is gone" in explain(FileNotFoundError(errno.ENOENT, "x"), tmp_path).what


def test_a_full_disk_is_known_behind_the_errors_of_libraries_and_of_streams() -> None:
    with pytest.raises(Exception, match="os error") as raised:
        Tokenizer(models.BPE()).save("/dev/full")
    explained = explain_any(raised.value)
    assert explained is not None and "disk is full" in explained.what
    with (
        open("/dev/full", "wb", buffering=0) as stream,
        pytest.raises(OSError, match="No space") as failed,
    ):
        stream.write(b"x")
    assert failed.value.filename is None
    explained = explain_any(failed.value)
    assert explained is not None and "disk is full" in explained.what


@pytest.mark.parametrize("error", [ValueError("of ours"), OSError(errno.ECONNRESET, "reset")])
def test_an_error_that_is_not_of_a_file_is_not_explained(error: Exception) -> None:
    assert explain_any(error) is None

from __future__ import annotations

import pytest

from distillspec.runtime.notes import say_once


def test_a_note_is_logged_once_and_another_one_too(caplog: pytest.LogCaptureFixture) -> None:
    for text in ("test_notes: a % sign", "test_notes: a % sign", "test_notes: another"):
        say_once(text)
    assert caplog.messages == ["test_notes: a % sign", "test_notes: another"]

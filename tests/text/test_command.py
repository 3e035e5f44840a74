import pytest

from distillspec.text.command import STARTED_AS, command


def test_the_next_command_is_typed_as_this_one_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STARTED_AS, raising=False)
    assert command("run", "a b") == "distillspec run 'a b'"
    monkeypatch.setenv(STARTED_AS, "./launch.sh")
    assert command("run", "RECIPE") == "./launch.sh run RECIPE"

from __future__ import annotations

from distillspec.text.nearest import nearest


def test_a_slip_of_the_keyboard_finds_its_word() -> None:
    assert nearest("on_polcy", ["seed", "on_policy"]) == "on_policy"


def test_a_word_that_is_like_none_finds_none() -> None:
    assert nearest("x", ["seed", "on_policy"]) is None
    assert nearest("seed", []) is None

from __future__ import annotations

import io
import sys
import unicodedata

import pytest

from distillspec.text.foreign import say, visible

# Formatters that are seen as signs of their own, and the two joiners of scripts and emoji.
SHOWN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, 0x200C, 0x200D}
HIEROGLYPHS = range(0x13430, 0x13440)


def test_every_control_and_every_formatter_that_is_not_seen_becomes_visible() -> None:
    passed = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            shown = visible(chr(code))
            if shown == chr(code):
                passed.append(code)
            else:
                assert shown.isascii() and shown.isprintable()
    assert set(passed) - {*HIEROGLYPHS} == {9, 10} | SHOWN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\r\n\tb", "a\\x0d\n\tb"),
        ("\u202eevil", r"\u202eevil"),
        ("\U000e0041", r"\U000e0041"),
        ("\udcff", r"\udcff"),
        ("é 😀 می‌خواهم", "é 😀 می‌خواهم"),
    ],
)
def test_the_escape_names_the_character(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_a_line_stays_one_line() -> None:
    assert visible("a\n\tb", one_line=True) == r"a\n\tb"


def test_what_is_said_is_visible() -> None:
    page = io.StringIO()
    say("\x1b[31mred\ud800", page)
    assert page.getvalue() == "\\x1b[31mred\\ud800\n"

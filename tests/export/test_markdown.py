"""Foreign text stays text."""

from __future__ import annotations

import pytest

from distillspec.export.markdown import code_block, name, one_line, words


def test_html_and_markdown_are_escaped() -> None:
    assert words("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert words("a|b `c` [d](e) *f* _g_") == r"a\|b \`c\` \[d\](e) \*f\* \_g\_"
    assert words("100 % of 3 x 4, T = 1") == "100 % of 3 x 4, T = 1"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028", "\x85", "\t"])
def test_line_ends_become_spaces(end: str) -> None:
    assert one_line(f"a{end}b{end}") == "a b"


def test_controls_are_shown_and_not_obeyed() -> None:
    assert one_line("a\x1b[31m\u202eb") == r"a\x1b[31m\u202eb"
    assert words("\x1b") == r"\\x1b"


def test_a_plain_name_is_code_and_another_one_is_escaped() -> None:
    assert name("models/draft-1.5b") == "`models/draft-1.5b`"
    assert name("a`b|<i>") == r"a\`b\|&lt;i&gt;"


def test_a_block_ends_with_its_own_fence_alone() -> None:
    assert code_block("bash", "ls") == "```bash\nls\n```"
    assert code_block("", "a\x1b[1m\n\tb") == "```\na\\x1b[1m\n\tb\n```"
    assert code_block("", "a```` b").splitlines() == ["`````", "a```` b", "`````"]

"""Foreign text in a model card: names, paths and notes that may hold anything.

Nothing in it is read as HTML, as Markdown, as a cell's end or as the end of a code block.
"""

from __future__ import annotations

import re
from html import escape

_PLAIN = re.compile(r"[\w./ @:+=-]+")
_MARKUP = re.compile(r"([\\`*_\[\]|~])")
# C0 and C1 controls and line separators, and what changes the direction of text.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def one_line(text: str) -> str:
    """The text without controls and line ends, each run of which becomes a space."""
    return _CONTROLS.sub(" ", text).strip()


def words(text: str) -> str:
    """Foreign text in a sentence or a cell of a table."""
    return _MARKUP.sub(r"\\\1", escape(one_line(text), quote=False))


def name(text: str) -> str:
    """A foreign name as code where its letters allow that, else as plain words."""
    plain = one_line(text)
    return f"`{plain}`" if _PLAIN.fullmatch(plain) else words(plain)


def code_block(language: str, text: str) -> str:
    """A fenced block, whose fence is longer than any run of backticks in the text.

    Controls, which no line of it can need, are shown as U+FFFD; line ends and tabs stay.
    """
    text = "".join(c if c in "\n\t" else _CONTROLS.sub("\ufffd", c) for c in text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"

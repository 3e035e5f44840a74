"""Foreign text in a model card, such as names, paths and notes, and the card's table.

Foreign text is never read as HTML, as Markdown, as the end of a cell or of a code block.
"""

from __future__ import annotations

import re
from html import escape

from distillspec.report.grid import Grid
from distillspec.text.foreign import visible

_PLAIN = re.compile(r"[\w./ @:+=-]+")
_MARKUP = re.compile(r"([\\`*_\[\]|~])")


def one_line(text: str) -> str:
    """The text in one line, with control characters as escapes."""
    return visible(" ".join(text.split()), one_line=True)


def words(text: str) -> str:
    """Foreign text for a sentence or a cell of a table."""
    return _MARKUP.sub(r"\\\1", escape(one_line(text), quote=False))


def name(text: str) -> str:
    """A foreign name as code if its characters allow it, else as plain words."""
    plain = one_line(text)
    return f"`{plain}`" if _PLAIN.fullmatch(plain) else words(plain)


def code_block(language: str, text: str) -> str:
    """A code block. Its fence is longer than any run of backticks in the text."""
    text = visible(text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def table(grid: Grid) -> str:
    """A table with its words escaped; numbers are right-aligned."""
    rows = [
        [
            cell if head.is_number else words(cell)
            for head, cell in zip(grid.heads, line.cells, strict=True)
        ]
        for line in grid.lines
    ]
    rules = ["---:" if head.is_number else "---" for head in grid.heads]
    lines = [[head.title for head in grid.heads], rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

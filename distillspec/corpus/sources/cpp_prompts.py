"""Prompts cut from C++ files: each ends with a line inside a pair of braces.

A prompt begins at the start of the file, and the response is the rest of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from distillspec.corpus.sources.code_files import SourceFile
from distillspec.corpus.sources.passage import Passage, in_turns, rank

# What braces do not count in: comments, strings and characters.
_APART = re.compile(
    r"//[^\n]*|/\*.*?\*/|R\"([^()\\\s]{0,16})\(.*?\)\1\""
    r"|\"(?:\\.|[^\"\\\n])*\"|(?<![0-9A-Za-z_])(?:u8|[uUL])?'(?:\\.|[^'\\\n])+'",
    re.DOTALL,
)
_ENDS = (";", "{", "}", ",")  # of a line that a response may follow


def cpp_passages(
    files: Sequence[SourceFile], *, per_file: int, seed: int, line_break_first: bool
) -> Iterator[Passage]:
    """At most `per_file` passages per file: first one of each file, then a second of each.

    The choice and the order of the files depend on seed and keys alone.

    Args:
        files: The files to cut.
        per_file: Passages per file, at most.
        seed: Decides the choice and the order.
        line_break_first: See `response_starts_with_line_break`.
    """

    def passages_of(file: SourceFile, place: int) -> list[Passage]:
        ends = sorted(_line_ends(file.text), key=lambda end: rank(seed, f"{file.key}@{end}"))
        return [_passage(file, end, line_break_first) for end in ends[:per_file]]

    return in_turns(files, per_file, seed, passages_of)


def _passage(file: SourceFile, end: int, line_break_first: bool) -> Passage:
    line = file.text.count("\n", 0, end) + 1
    cut = end
    # Blank lines stay with the line break.
    while not line_break_first and file.text[cut : cut + 1] == "\n":
        cut += 1
    return Passage(
        f"{file.key}:{line}",
        file.text[:cut],
        file.text[cut:],
        "mid-body",
        "mid-body",
        document=file.key,
    )


def _line_ends(text: str) -> list[int]:
    """The ends of lines inside braces that end a statement, a head or an element."""
    blank = _APART.sub(lambda part: re.sub(r"[^\n]", " ", part[0]), text)
    ends, depth, position = [], 0, 0
    for line in blank.split("\n"):
        # Both branches of an #if may close a brace.
        depth = max(0, depth + line.count("{") - line.count("}"))
        position += len(line)
        # A line without code has nothing that a response could continue.
        if depth > 0 and line.rstrip().endswith(_ENDS):
            ends.append(position)
        position += 1  # the line break
    return ends

"""Prompts cut from Python files: function heads, and positions inside function bodies.

A *function-head* prompt ends with a function's docstring, a *mid-body* prompt with a statement of a
body. Both begin at the start of the file, and the response is the rest of the file. The module
searches `def` lines and parses each function separately, since parsing entire files takes minutes.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

from distillspec.corpus.sources.code_files import SourceFile
from distillspec.corpus.sources.passage import Passage, in_turns, rank
from distillspec.corpus.sources.tokenizing import Tokenizer

PythonKind = Literal["function-head", "mid-body"]

_DEF = re.compile(r"^([ \t]*)(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(", re.MULTILINE)
_DOCSTRING_OPENS = re.compile(r":\s*[rRuU]?(\"\"\"|''')")
_CLOSING = (")", "]", "}")  # a signature's last line may stand at the column of its `def`
_LONGEST_FUNCTION = 20_000  # characters
_BLANK_LINES = re.compile(r"(?:[ \t]*\n)*")


def python_passages(
    files: Sequence[SourceFile], *, per_file: int, seed: int, line_break_first: bool
) -> Iterator[Passage]:
    """At most `per_file` passages per file: first one of each file, then a second of each.

    The choice and the order of the files depend on seed and keys alone. The kinds alternate; a file
    that has too few of one kind gives more of the other kind.

    Args:
        files: The files to cut.
        per_file: Passages per file, at most.
        seed: Decides the choice and the order.
        line_break_first: See `response_starts_with_line_break`.
    """

    def passages_of(file: SourceFile, place: int) -> list[Passage]:
        cuts = _cuts(file, per_file, seed, heads_first=place % 2 == 0)
        return [_passage(file, end, kind, line_break_first) for end, kind in cuts]

    return in_turns(files, per_file, seed, passages_of)


def response_starts_with_line_break(tokenizer: Tokenizer) -> bool:
    """Whether this tokenizer joins a line break to the text after it, rather than before it.

    Tokenizers join line breaks to the characters before (`):\\n`) or to the indentation after
    (`\\n    `). A prompt must end where a token of running text ends. Otherwise its last token is
    one that the target has rarely seen in that position.
    """

    def seamless(before: str, after: str) -> bool:
        joined, head, tail = tokenizer([before + after, before, after], add_special_tokens=False)[
            "input_ids"
        ]
        return bool(joined == [*head, *tail])

    lines = [('    """Doc."""', "    return x"), ("        x = f(y)", "        return x")]
    return not all(seamless(a + "\n", b) for a, b in lines) and all(
        seamless(a, "\n" + b) for a, b in lines
    )


def _passage(file: SourceFile, end: int, kind: PythonKind, line_break_first: bool) -> Passage:
    """The passage whose last line ends at `end`. Blank lines stay with the line break."""
    line = file.text.count("\n", 0, end) + 1
    cut = end
    if not line_break_first:
        cut = _after_blank_lines(file.text, end)
    return Passage(
        f"{file.key}:{line}", file.text[:cut], file.text[cut:], kind, kind, document=file.key
    )


def _cuts(
    file: SourceFile, count: int, seed: int, *, heads_first: bool
) -> list[tuple[int, PythonKind]]:
    """Up to `count` ends of prompts, kinds alternating while both last."""
    starts = list(_DEF.finditer(file.text))
    starts.sort(key=lambda m: rank(seed, f"{file.key}@{m.start()}"))
    heads = _distinct(_head_end(file.text, m) for m in starts)
    # In the reverse order, so that the two kinds use different functions where there are several.
    bodies = _distinct(_body_end(file, m, seed) for m in reversed(starts))
    kinds: list[tuple[Iterator[int], PythonKind]] = [
        (heads, "function-head"),
        (bodies, "mid-body"),
    ]
    if not heads_first:
        kinds.reverse()
    cuts: list[tuple[int, PythonKind]] = []
    # Each kind gives one cut in turn, and is dropped when it has no more.
    while kinds and len(cuts) < count:
        ends, kind = kinds.pop(0)
        end = next(ends, None)
        if end is not None:
            cuts.append((end, kind))
            kinds.append((ends, kind))
    return cuts


def _distinct(ends: Iterator[int | None]) -> Iterator[int]:
    seen: set[int] = set()
    for end in ends:
        if end is not None and end not in seen:
            seen.add(end)
            yield end


def _head_end(text: str, start: re.Match[str]) -> int | None:
    """The end of the docstring's last line; None without docstring or without a body."""
    opening = _DOCSTRING_OPENS.search(text, start.end())
    if opening is None or _DEF.search(text, start.end(), opening.start()):
        return None
    close = text.find(opening[1], opening.end())
    if close < 0:
        return None
    end = _line_end(text, close)
    node = _parsed(text[start.start() : end], start[1])
    # The head has one statement, the docstring. The next line must be deeper than the `def`.
    if node is None or len(node.body) != 1 or ast.get_docstring(node, clean=False) is None:
        return None
    body = _after_blank_lines(text, end)
    line = text[body : _line_end(text, body)]
    indentation = len(line) - len(line.lstrip(" \t"))
    if indentation <= len(start[1]) or _inside_string(text, start.start()):
        return None
    return end


def _body_end(file: SourceFile, start: re.Match[str], seed: int) -> int | None:
    """The end of a statement's last line in the body, but not of the body's last statement."""
    function = _function_text(file.text, start)
    if function is None or (node := _parsed(function, start[1])) is None:
        return None
    statements = [s for s in _statements(node) if not _is_text(s)]
    # Not the last statement: something must be left to continue.
    lines = sorted({s.end_lineno for s in statements if s.end_lineno})[:-1]
    if not lines or _inside_string(file.text, start.start()):
        return None
    line = min(lines, key=lambda n: rank(seed, f"{file.key}@{start.start()}+{n}"))
    end = start.start()
    # The parser counts from 1, or from 2 with the line that `_parsed` puts before.
    for _ in range(line - 1 - (1 if start[1] else 0)):
        end = file.text.index("\n", end) + 1
    return _line_end(file.text, end)


def _function_text(text: str, start: re.Match[str]) -> str | None:
    """The text from `def` to the last line deeper than it; None if it is too long to parse."""
    end = first = _line_end(text, start.start())
    while end < len(text) and end - start.start() <= _LONGEST_FUNCTION:
        following = _line_end(text, end + 1)
        line = text[end + 1 : following]
        bare = line.lstrip(" \t")
        shallow = bare and len(line) - len(bare) <= len(start[1])
        in_text = shallow and text.count('"""', start.start(), end) % 2 == 1
        if shallow and not in_text and not bare.startswith(_CLOSING):
            break
        end = following
    else:
        if end < len(text):
            return None
    return text[start.start() : end] if end > first else None


def _parsed(source: str, indentation: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The parsed function; its line numbers count from 1, or from 2 for an indented function."""
    try:
        with warnings.catch_warnings():  # invalid escapes in the parsed code do not matter
            warnings.simplefilter("ignore")
            # An indented function is valid only inside a block.
            module = ast.parse(f"if 1:\n{source}" if indentation else source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    node = module.body[0]
    if isinstance(node, ast.If):
        node = node.body[0]
    return node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _statements(child)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _inside_string(text: str, position: int) -> bool:
    """Whether a `def` is inside a docstring's example: an odd number of quotes precedes it."""
    return text.count('"""', 0, position) % 2 == 1


def _after_blank_lines(text: str, line_end: int) -> int:
    """The start of the next line that is not blank."""
    following = _BLANK_LINES.match(text, line_end)
    assert following is not None
    return following.end()


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end

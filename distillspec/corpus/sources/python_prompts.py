"""Prompts cut from Python files: function heads, and positions inside function bodies.

A *function-head* ends with a function's docstring, a *mid-body* prompt with a statement of a body;
both begin at the beginning of the file, and the response is the rest of the file. Functions are
found by their `def` lines and parsed one by one: parsing whole files would take minutes.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

from distillspec.corpus.sources.passage import Passage, rank
from distillspec.corpus.sources.python_source import SourceFile
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
    """At most `per_file` passages a file: one of each file, then a second of each, and so on.

    Which ones, and the order of the files, depends on seed and keys alone. The kinds alternate; a
    file that has too few of one kind gives more of the other. line_break_first: see
    `response_starts_with_line_break`.
    """
    ordered = sorted(files, key=lambda f: (rank(seed, f.key), f.key))
    plans: dict[str, list[Passage]] = {}
    for turn in range(per_file):
        for number, file in enumerate(ordered):
            if turn == 0:
                cuts = _cuts(file, per_file, seed, heads_first=number % 2 == 0)
                plans[file.key] = [
                    _passage(file, end, kind, line_break_first) for end, kind in cuts
                ]
            if turn < len(plans[file.key]):
                yield plans[file.key][turn]


def response_starts_with_line_break(tokenizer: Tokenizer) -> bool:
    """Whether a line break belongs to what follows it, for this tokenizer, or to what precedes it.

    Tokenizers join line breaks to the signs before (`):\\n`) or to the indentation after
    (`\\n    `); a prompt must end where a token of running text ends, or its last token is one that
    the target has hardly ever seen there.
    """

    def seamless(before: str, after: str) -> bool:
        whole, head, tail = tokenizer([before + after, before, after], add_special_tokens=False)[
            "input_ids"
        ]
        return bool(whole == [*head, *tail])

    lines = [('    """Doc."""', "    return x"), ("        x = f(y)", "        return x")]
    return not all(seamless(a + "\n", b) for a, b in lines) and all(
        seamless(a, "\n" + b) for a, b in lines
    )


def _passage(
    file: SourceFile,
    end: int,
    kind: PythonKind,
    line_break_first: bool,
) -> Passage:
    """end: of the prompt's last line. Blank lines go with the line break, whole."""
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
    # From the other end of the order: of another function, where there are several.
    bodies = _distinct(_body_end(file, m, seed) for m in reversed(starts))
    kinds: list[tuple[Iterator[int], PythonKind]] = [
        (heads, "function-head"),
        (bodies, "mid-body"),
    ]
    if not heads_first:
        kinds.reverse()
    found: list[tuple[int, PythonKind]] = []
    while kinds and len(found) < count:
        ends, kind = kinds.pop(0)
        end = next(ends, None)
        if end is not None:
            found.append((end, kind))
            kinds.append((ends, kind))
    return found


def _distinct(ends: Iterator[int | None]) -> Iterator[int]:
    seen: set[int] = set()
    for end in ends:
        if end is not None and end not in seen:
            seen.add(end)
            yield end


def _head_end(text: str, start: re.Match[str]) -> int | None:
    """Where the line of the docstring's end ends; None without docstring or without a body."""
    opening = _DOCSTRING_OPENS.search(text, start.end())
    if opening is None or _DEF.search(text, start.end(), opening.start()):
        return None
    close = text.find(opening[1], opening.end())
    if close < 0:
        return None
    end = _line_end(text, close)
    node = _parsed(text[start.start() : end], start[1])
    # The head alone is one statement: the docstring. What follows it must be deeper than the `def`.
    if node is None or len(node.body) != 1 or ast.get_docstring(node, clean=False) is None:
        return None
    body = _after_blank_lines(text, end)
    line = text[body : _line_end(text, body)]
    indentation = len(line) - len(line.lstrip(" \t"))
    if indentation <= len(start[1]) or _inside_string(text, start.start()):
        return None
    return end


def _body_end(file: SourceFile, start: re.Match[str], seed: int) -> int | None:
    """Where the last line of some statement of the body ends, but not of the last one."""
    function = _function_text(file.text, start)
    if function is None or (node := _parsed(function, start[1])) is None:
        return None
    statements = [s for s in _statements(node) if not _is_text(s)]
    lines = sorted({s.end_lineno for s in statements if s.end_lineno})[:-1]
    if not lines or _inside_string(file.text, start.start()):
        return None
    line = min(lines, key=lambda n: rank(seed, f"{file.key}@{start.start()}+{n}"))
    end = start.start()
    for _ in range(line - 1 - (1 if start[1] else 0)):
        end = file.text.index("\n", end) + 1
    return _line_end(file.text, end)


def _function_text(text: str, start: re.Match[str]) -> str | None:
    """From `def` to the last line deeper than it; None for one too long to parse for a prompt."""
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
    """The function of an indented text; its line numbers count from 1, or 2 where indented."""
    try:
        with warnings.catch_warnings():  # an odd escape in someone's string is no concern of ours
            warnings.simplefilter("ignore")
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
    """Whether a `def` stands in a docstring's example: an odd number of quotes lies before it."""
    return text.count('"""', 0, position) % 2 == 1


def _after_blank_lines(text: str, line_end: int) -> int:
    """The beginning of the next line that is not blank."""
    following = _BLANK_LINES.match(text, line_end)
    assert following is not None
    return following.end()


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end

"""The fenced blocks of README.md and docs/, and the commands in them: for `docs.py` and the tests.

A comment above a block says what is special about it:

    <!-- needs: gpu, hub -->          not run here: gpu, hub, engine, run-folder
    <!-- run: key=value --option -->  run with these arguments more, so that it takes seconds
    <!-- run: skip, the reason -->    not run
    <!-- file: PATH -->               the block is this file; commands may name it
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_MARK = re.compile(r"<!-- (needs|run|file): ?(.*?) -->")
_FENCE = re.compile(r"( *)```(\w*)\n(.*?)\n\1```", re.DOTALL)
_ASSIGNED = re.compile(r"[A-Z_]+=.*")


class Block(NamedTuple):
    """A fenced block. line: of its fence, from 1. marks: needs, run, file, where they are given."""

    page: str
    line: int
    language: str
    text: str
    marks: Mapping[str, str]

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """A command that the package takes. words: VERB and its arguments, without environment."""

    place: str
    words: tuple[str, ...]
    needs: str
    run: str


def pages() -> list[Path]:
    """README.md, then the pages of docs/ in the order of the navigation."""
    named = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return [ROOT / "README.md", *(ROOT / "docs" / name for name in named)]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        before = text[: found.start()]
        above = re.search(r"(?:<!--[^\n]*-->\n *)+\Z", before)
        marks = dict(_MARK.findall(above[0])) if above else {}
        indent, language, inside = found.groups()
        lines = [line.removeprefix(indent) for line in inside.split("\n")]
        line = before.count("\n") + 1
        yield Block(page.relative_to(ROOT).as_posix(), line, language, "\n".join(lines), marks)


def every_block() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a bash block that start `distillspec`, `./launch.sh` or torchrun."""
    if block.language != "bash":
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        words = verb_and_arguments(shlex.split(line, comments=True))
        if words is not None:
            marks = block.marks
            yield Command(block.place, words, marks.get("needs", ""), marks.get("run", ""))


def verb_and_arguments(words: Sequence[str]) -> tuple[str, ...] | None:
    """Without environment and launcher; None for commands of other programs."""
    rest = list(words)
    while rest and _ASSIGNED.fullmatch(rest[0]):
        rest.pop(0)
    if not rest:
        return None
    if rest[0] == "distillspec":
        return tuple(rest[1:])
    if rest[0] == "./launch.sh":
        is_run = rest[1:] and (rest[1].endswith(".yaml") or "/" in rest[1])
        return ("run", *rest[1:]) if is_run else tuple(rest[1:])
    launches = rest[0] == "torchrun" or rest[:3] == ["python", "-m", "distillspec.runtime.torchrun"]
    if launches and "distillspec" in rest:
        return tuple(rest[rest.index("distillspec") + 1 :])
    return None


def write_files(folder: Path) -> list[Path]:
    """Write every block that is a file under `folder`."""
    written = []
    for block in every_block():
        if "file" in block.marks:
            path = folder / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n", encoding="utf-8")
            written.append(path)
    return written

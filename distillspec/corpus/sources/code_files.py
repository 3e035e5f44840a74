"""A corpus of code that every machine with this project has.

It consists of the interpreter's standard library and of installed packages, without tests and
generated tables. Entire files are held out, by a fixed hash of their path. The same files are
therefore held out on every machine, independent of the rest of the corpus.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import math
import os
import re
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.recipe.data import CodeSource, PythonSource

_TEST_FOLDERS = {"test", "tests", "testing", "idle_test", "site-packages", "__pycache__"}
_GENERATED = ("encodings/*", "pydoc_data/*", "lib2to3/*", "ensurepip/_bundled/*", "*_pb2.py")
_PYTHON, _CPP = (".py",), (".h", ".hh", ".hpp", ".hxx", ".cc", ".cpp", ".cxx", ".cuh", ".cu")
# A comment of C++ at the beginning of a file, with the white space around it.
_CPP_COMMENT = re.compile(r"\s*(?://[^\n]*(?:\n|$)|/\*.*?\*/)\s*(?P<guard>)", re.DOTALL)
_CPP_GUARD = re.compile(r"\s*(?P<guard>#[ \t]*(?:pragma[ \t]+once|ifndef|if|define)\b[^\n]*\n)")
_TABLE_DIGIT_SHARE = 0.15  # a file with more digits than this is a table, not code
_MOST_BYTES = 1_000_000


class SourceFile(NamedTuple):
    """A file of code.

    Attributes:
        key: Path with its package, such as `transformers/models/llama/modeling_llama.py`.
        text: The code without leading comment lines.
    """

    key: str
    text: str


class CorpusFiles(NamedTuple):
    training: list[SourceFile]
    held_out: list[SourceFile]


def is_held_out(key: str, percent: float) -> bool:
    """Whether the item named `key` is held out from training; its SHA-256 decides, permanently."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return bucket * 100.0 < percent


def code_files(source: CodeSource, held_out_percent: float) -> CorpusFiles:
    """All files of `source` in the order of their keys, split by `is_held_out`.

    Leading comment lines (licence headers) are dropped, since thousands of copies of one text would
    make every measurement look better than it is.

    Raises:
        DistillSpecError: A package is not installed, or a part has no file.
    """
    files = all_files(source)
    training = [f for f in files if not is_held_out(f.key, held_out_percent)]
    held_out = [f for f in files if is_held_out(f.key, held_out_percent)]
    check_divided(len(training), len(held_out), held_out_percent, "files", "widen `include` to")
    return CorpusFiles(training, held_out)


def all_files(source: CodeSource) -> list[SourceFile]:
    """All files of `source` in the order of their keys.

    Raises:
        DistillSpecError: A package is not installed, or no file matches.
    """
    files = list(_files(source))
    if not files:
        raise DistillSpecError(
            f"the {source.kind} matches no file",
            where="data.source.include / exclude",
            fix="globs are relative to the package folder, such as "
            + ("'models/*.py'" if isinstance(source, PythonSource) else "'include/*'"),
        )
    return files


def check_divided(
    training: int, held_out: int, held_out_percent: float, documents: str, more: str
) -> None:
    """DistillSpecError if a corpus has so few documents that one side has none.

    Args:
        training, held_out: Documents of each side.
        held_out_percent: Of the recipe.
        documents: What the documents are, in words.
        more: How to get more of them, in words; their number follows.
    """
    if training and held_out:
        return
    # With so many, each side has one on average. The hash decides, so more may be needed.
    needed = math.ceil(100.0 / min(held_out_percent, 100.0 - held_out_percent))
    raise DistillSpecError(
        f"there are too few documents to divide: {training + held_out} {documents}, of which "
        f"{training} are for training and {held_out} held out",
        where=f"held_out_percent={held_out_percent:g}",
        fix=f"{more} more than {needed} {documents}, or change held_out_percent",
        why="a draft or model is measured on documents that it is not trained on",
    )


def _files(source: CodeSource) -> Iterator[SourceFile]:
    roots = []
    if isinstance(source, PythonSource) and source.standard_library:
        roots.append(("python", Path(sysconfig.get_path("stdlib"))))
    roots += [(package, _package_folder(package)) for package in source.packages]
    for name, root in roots:
        for relative in sorted(_wanted(root, source), key=lambda path: path.split("/")):
            text = _text(root / relative, source)
            if text is not None:
                yield SourceFile(f"{name}/{relative}", text)


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DistillSpecError(
            f"package '{package}' is not installed, or is not a folder of modules",
            where="data.source.packages",
            fix=f"run `pip install {package}`, or remove it from data.source.packages",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _wanted(root: Path, source: CodeSource) -> Iterator[str]:
    """The files of a package that the source takes, as paths from `root` with `/`."""
    # As in a shell, a leading `**/` also matches files without a folder.
    is_included = _matcher([*source.include, *(p[3:] for p in source.include if p[:3] == "**/")])
    is_excluded = _matcher([*_GENERATED, *source.exclude])
    suffixes = _PYTHON if isinstance(source, PythonSource) else _CPP
    for folder, subfolders, names in os.walk(root):
        # Changed in place, so that os.walk does not enter folders of tests.
        subfolders[:] = [name for name in subfolders if name not in _TEST_FOLDERS]
        above = Path(folder).relative_to(root).as_posix() + "/"
        for name in names:
            relative = (above + name).removeprefix("./")
            if not name.endswith(suffixes) or name.startswith("test_"):
                continue
            if is_included(relative) and not is_excluded(relative):
                yield relative


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path matches one of the shell patterns, whose `*` matches `/` too."""
    if not patterns:
        return lambda path: False
    expression = re.compile("|".join(map(fnmatch.translate, patterns)))
    return lambda path: expression.match(path) is not None


def _text(path: Path, source: CodeSource) -> str | None:
    """The code without its leading comments; None for tables, other encodings and huge files."""
    if path.stat().st_size > _MOST_BYTES:
        return None
    try:
        whole = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
    without = _without_header if isinstance(source, PythonSource) else _without_cpp_header
    text = without(whole)
    if not text or sum(map(str.isdigit, text)) > _TABLE_DIGIT_SHARE * len(text):
        return None
    return text


def _without_header(text: str) -> str:
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip() and line[0] != "#"), None)
    return "" if first is None else "\n".join(lines[first:])


def _without_cpp_header(text: str) -> str:
    kept, end = "", 0
    # Licences are in several comments, which may follow the lines that guard a header.
    while part := _CPP_COMMENT.match(text, end) or _CPP_GUARD.match(text, end):
        kept += part["guard"] or ""
        end = part.end()
    return kept + text[end:].lstrip() if text[end:].strip() else ""

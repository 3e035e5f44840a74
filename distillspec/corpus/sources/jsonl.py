"""Passages of a JSONL file: one object a line; every fault is told with its file and line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillspec.corpus.sources.passage import Passage, with_unique_keys
from distillspec.corpus.sources.rows import Chats, check_categories, passage_of, too_short
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import JsonlSource
from distillspec.runtime.plain_files import BoundedText, read_bytes

_MOST_BYTES = 16 * 2**30


def jsonl_passages(
    source: JsonlSource, chats: Chats | None, section: str = "data.source"
) -> list[Passage]:
    """One passage for each line that is not blank, in the order of the file.

    section: the source's place in recipe or suite, for errors.
    """
    path = Path(source.path)
    passages = []
    rows = 0
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        text = _decoded(line, where)
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DistillSpecError(
                f"this line is not JSON: {error}",
                where=where,
                fix="each line is one JSON object, without line breaks inside",
            ) from error
        if not isinstance(row, dict):
            raise DistillSpecError(
                f"this line is JSON, but not an object: {text.strip()[:40]}",
                where=where,
                fix='write each line as {"prompt": "...", "response": "..."}',
            )
        rows += 1
        _check_characters(text, row, where)
        passage = passage_of(row, source, chats, name=path.name, where=where, section=section)
        if passage is not None:
            passages.append(passage)
    if rows and not passages:
        raise (chats and chats.first_error) or too_short(source, str(path), section)
    if not passages:
        raise DistillSpecError(
            "the file has no rows", where=str(path), fix="write one JSON object a line"
        )
    check_categories(passages, source, str(path))
    return with_unique_keys(passages)


def _lines(path: Path) -> list[bytes]:
    if path.is_dir():
        raise DistillSpecError(
            "this is a folder, not a JSONL file",
            where=str(path),
            fix="name the file; a folder that `datasets` can load is a source of kind: hub",
        )
    fix = "give the path of a JSONL file, relative to the working folder"
    return read_bytes(BoundedText(path, "the data file", fix), most=_MOST_BYTES).splitlines()


def _decoded(line: bytes, where: str) -> str:
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _binary(where) from error
    if "\0" in text:
        raise _binary(where)
    return text


def _check_characters(text: str, row: Mapping[str, Any], where: str) -> None:
    """JSON can spell half a character, which no text can hold."""
    if "\\u" not in text:
        return
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DistillSpecError(
            f"a text has half a character, \\u{ord(error.object[error.start]):04x}: an emoji that "
            "was cut in two?",
            where=where,
            fix="take the escape out, or give both halves of the surrogate pair",
        ) from error


def _binary(where: str) -> DistillSpecError:
    return DistillSpecError(
        "this is not UTF-8 text: a binary or compressed file?",
        where=where,
        fix="unpack it, or save it as JSONL in UTF-8",
    )

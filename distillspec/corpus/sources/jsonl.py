"""Passages of a JSONL file with one object per line; errors name the file and the line."""

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

    Args:
        source: The file, and the fields to read.
        chats: Renders chats; None if chats are not read.
        section: Where recipe or suite name the source, for errors.

    Raises:
        DistillSpecError: The file or one of its lines cannot be read, or gives no passage.
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
                fix="write one JSON object per line, without line breaks inside",
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
    # No row gave a passage: the template split none of them, or all are too short.
    if rows and not passages:
        raise (chats and chats.first_error) or too_short(source, str(path), section)
    if not passages:
        raise DistillSpecError(
            "the file has no rows", where=str(path), fix="write one JSON object per line"
        )
    check_categories(passages, source, str(path))
    return with_unique_keys(passages)


def _lines(path: Path) -> list[bytes]:
    if path.is_dir():
        raise DistillSpecError(
            "this is a folder, not a JSONL file",
            where=str(path),
            fix="name the file; for a folder that `datasets` can load, set kind: hub",
        )
    fix = "set `path` to a JSONL file, relative to the working folder"
    return read_bytes(BoundedText(path, "the data file", fix), most=_MOST_BYTES).splitlines()


def _decoded(line: bytes, where: str) -> str:
    try:
        # `-sig` drops the byte order mark that some editors write.
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _binary(where) from error
    if "\0" in text:
        raise _binary(where)
    return text


def _check_characters(text: str, row: Mapping[str, Any], where: str) -> None:
    """Refuse half a surrogate pair, which JSON can spell but no text can hold."""
    if "\\u" not in text:
        return
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DistillSpecError(
            f"a text has half a surrogate pair, \\u{ord(error.object[error.start]):04x}: an emoji "
            "that was cut in two?",
            where=where,
            fix="remove the escape, or write both halves of the surrogate pair",
        ) from error


def _binary(where: str) -> DistillSpecError:
    return DistillSpecError(
        "this is not UTF-8 text: a binary or compressed file?",
        where=where,
        fix="unpack it, or save it as JSONL in UTF-8",
    )

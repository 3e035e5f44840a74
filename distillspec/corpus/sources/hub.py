"""Passages of a Hugging Face Hub data set, or of a folder that `datasets` can load."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets

from distillspec.corpus.sources.passage import Passage, with_unique_keys
from distillspec.corpus.sources.rows import (
    QUESTION_AND_ANSWER,
    Chats,
    check_categories,
    outer,
    passage_of,
    too_short,
)
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import HubSource


def hub_passages(
    source: HubSource, chats: Chats | None, section: str = "data.source"
) -> list[Passage]:
    """One passage per row, in the order of the data set.

    Args:
        source: The data set, and the columns to read.
        chats: Renders chats; None if chats are not read.
        section: Where recipe or suite name the source, for errors.

    Raises:
        DistillSpecError: The data set cannot be loaded, or lacks the split or a column.
    """
    rows = _load(source, section)
    where = f"data set {source.dataset}, split {source.split}"
    # 1. The columns that hold a prompt, of which one must exist.
    columns = rows.column_names
    asked = (source.turns,) if source.turns else (source.prompt, source.messages or source.prompt)
    also = () if source.turns or source.prompt != "prompt" else (*QUESTION_AND_ANSWER,)
    if not any(outer(path, columns) in columns for path in (*asked, *also[:1])):
        keys = ("turns", "prompt") if source.turns else ("prompt", "messages")
        raise DistillSpecError(
            "the data set has "
            + " and ".join(f"no column '{outer(path, columns)}'" for path in asked),
            where=where,
            fix=f"its columns are: {', '.join(columns)}; choose with "
            + ", or ".join(f"{section}.{key}=..." for key in keys),
        )
    # 2. All columns that are read. Others are not decoded: they may hold images.
    named = (*asked, *also, source.response, source.category, source.tools, source.document)
    wanted = {outer(path, columns) for path in named if path is not None}
    name = Path(source.dataset).name
    # 3. The passages. A row may give none.
    by_row = [
        passage_of(row, source, chats, name=name, where=f"{where}, row {number}", section=section)
        for number, row in enumerate(rows.select_columns([c for c in columns if c in wanted]))
    ]
    passages = [passage for passage in by_row if passage is not None]
    if by_row and not passages:
        raise (chats and chats.first_error) or too_short(source, where, section)
    check_categories(passages, source, where)
    return with_unique_keys(passages)


def _load(source: HubSource, section: str) -> datasets.Dataset:
    folder = Path(source.dataset)
    try:
        loaded = _from_disk(folder) if _was_saved(folder) else _from_library(source)
    except Exception as error:  # the library raises many types; all concern the data
        raise DistillSpecError(
            f"the data set cannot be loaded: {_first_line(error)}",
            where=f"{section}.dataset: {source.dataset}",
            fix=_fix(section),
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        if source.split not in loaded:
            raise DistillSpecError(
                f"the data set has no split '{source.split}'",
                where=f"{section}.dataset: {source.dataset}",
                fix=f"its splits are: {', '.join(map(str, loaded))}",
            )
        loaded = loaded[source.split]
    assert isinstance(loaded, datasets.Dataset)
    return loaded


def _fix(section: str) -> str:
    path = f"set {section}.path=FILE.jsonl to a local copy of its rows"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return f"unset HF_HUB_OFFLINE, which blocks the network, or {path}"
    return (
        "check the name and the configuration, and that the split exists and has rows; check the "
        f"network (a private data set also needs HF_TOKEN), or {path}"
    )


def _was_saved(folder: Path) -> bool:
    """Whether the folder was written by `save_to_disk`, which `load_dataset` cannot read."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def _from_disk(folder: Path) -> Any:
    return datasets.load_from_disk(str(folder))


def _from_library(source: HubSource) -> Any:
    return datasets.load_dataset(
        source.dataset,
        name=source.configuration,
        data_files=list(source.files) or None,
        split=source.split,
        revision=source.revision,
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__

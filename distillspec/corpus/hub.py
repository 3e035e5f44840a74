"""Passages of a data set of the Hugging Face Hub, or of a folder that `datasets` can load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from distillspec.corpus.passage import Passage, with_unique_keys
from distillspec.corpus.rows import passage_of
from distillspec.corpus.tokenizing import Tokenizer
from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import Hub


def hub_passages(source: Hub, tokenizer: Tokenizer) -> list[Passage]:
    """One passage a row, in the order of the data set.

    Errors: a data set that cannot be reached or loaded, a split or column that is not there.
    """
    rows = _load(source)
    where = f"data set {source.dataset}, split {source.split}"
    if not {source.prompt, source.messages} & set(rows.column_names):
        raise DistillSpecError(
            f"the data set has no column '{source.prompt}' and no column '{source.messages}'",
            where=where,
            mend=f"its columns are: {', '.join(rows.column_names)}; "
            "choose with data.source.prompt=..., or data.source.messages=...",
        )
    wanted = [
        c for c in (source.prompt, source.response, source.messages) if c in rows.column_names
    ]
    name = Path(source.dataset).name
    return with_unique_keys(
        passage_of(row, source, tokenizer, name=name, where=f"{where}, row {number}")
        for number, row in enumerate(rows.select_columns(wanted))
    )


def _load(source: Hub) -> datasets.Dataset:
    folder = Path(source.dataset)
    try:
        loaded = _from_disk(folder) if _was_saved(folder) else _from_library(source)
    except Exception as error:  # the library raises of every kind; all of it is about the data
        raise DistillSpecError(
            f"the data set cannot be loaded: {_first_line(error)}",
            where=f"data.source.dataset: {source.dataset}",
            mend="check the name and the configuration, and that the split exists and has rows; a "
            "Hub id needs the network (and HF_TOKEN where it is private), a local folder does not",
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        if source.split not in loaded:
            raise DistillSpecError(
                f"the data set has no split '{source.split}'",
                where=f"data.source.dataset: {source.dataset}",
                mend=f"its splits are: {', '.join(map(str, loaded))}",
            )
        loaded = loaded[source.split]
    assert isinstance(loaded, datasets.Dataset)
    return loaded


def _was_saved(folder: Path) -> bool:
    """Whether the folder was written by `save_to_disk`, which `load_dataset` cannot read."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def _from_disk(folder: Path) -> Any:
    return datasets.load_from_disk(str(folder))


def _from_library(source: Hub) -> Any:
    return datasets.load_dataset(
        source.dataset,
        name=source.configuration,
        split=source.split,
        revision=source.revision,
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__

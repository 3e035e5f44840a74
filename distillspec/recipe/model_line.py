"""The line of a dry run about a model or a tokenizer: where it is, and which files are not used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distillspec.errors import DistillSpecError
from distillspec.recipe.builtin import located, published
from distillspec.recipe.gguf_file import check_can_convert, converted_folder, gguf_file
from distillspec.recipe.hub_id import is_hub_id
from distillspec.recipe.model_files import (
    check_tokenizer_files,
    is_missing,
    model_files,
    model_folder,
    read_config,
)
from distillspec.recipe.published import check_fetched
from distillspec.recipe.rolls_back import check_rolls_back
from distillspec.recipe.weights_file import check_size


def model_line(name: str, where: str, *, decodes: bool = False) -> str:
    """The line for a model folder, GGUF file or Hub id.

    Args:
        name: As the recipe has it.
        where: The recipe's key, for errors.
        decodes: It is rolled back in speculative decoding, which not every model can be.

    Raises:
        DistillSpecError: There is none, or its files cannot be loaded.
    """
    if is_missing(name):
        return hub_or_missing(name, "model folder", where)
    try:
        if (packed := gguf_file(name)) is not None:
            return _gguf_line(packed)
        files = model_files(model_folder(name))
        check_tokenizer_files(files.folder)
        check_size(files)
        if decodes:
            check_rolls_back(files.config, str(files.folder))
    except DistillSpecError as error:
        raise _at(where, error) from error
    place = f"local folder {name}"
    if located(name) != name:
        place = f"built-in {name} ({files.folder})"
    return "; ".join([place, *files.notes])


def tokenizer_line(name: str, where: str) -> str:
    """The line for a model folder or Hub id whose tokenizer is taken; errors as of `model_line`."""
    if is_missing(name):
        return hub_or_missing(name, "model folder", where)
    try:
        if (packed := gguf_file(name)) is not None:
            return _gguf_line(packed)
        check_tokenizer_files(model_folder(name))
    except DistillSpecError as error:
        raise _at(where, error) from error
    return f"taken from {name}"


def local_config(name: str) -> dict[str, Any] | None:
    """config.json of a model that lies here; None for a Hub id or a GGUF file not yet converted."""
    if is_missing(name):
        return None
    packed = gguf_file(name)
    folder = model_folder(name) if packed is None else converted_folder(packed)
    return read_config(folder) if os.path.isdir(folder) else None


def hub_or_missing(name: str, noun: str, where: str) -> str:
    """The line for a Hub id; anything that cannot be one is a missing local path."""
    if (fetched := published(name)) is not None:
        try:
            check_fetched(fetched)
        except DistillSpecError as error:
            raise _at(where, error) from error
    if not is_hub_id(name):
        raise DistillSpecError(
            f"no such {noun}: '{name}'",
            where=where,
            fix="correct the path (relative to the working folder), or give a Hub id: org/name",
        )
    return f"{name} is no local folder: it would be fetched from the Hub"


def _gguf_line(file: Path) -> str:
    folder = converted_folder(file)
    if os.path.isdir(folder):
        return f"GGUF file {file}, converted to {folder}"
    check_can_convert(file)
    return f"GGUF file {file}; it would be converted to {folder}"


def _at(where: str, error: DistillSpecError) -> DistillSpecError:
    """The error with the recipe's key before the file."""
    return DistillSpecError(
        error.what, where=f"{where}: {error.where}", fix=error.fix, why=error.why
    )

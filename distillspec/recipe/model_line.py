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
from distillspec.recipe.written_files import HOT_TOKENS
from distillspec.runtime.plain_files import BoundedText, read_json


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


def head_text(draft: str | None, keep: int, where: str, *, counts_text: bool) -> str:
    """Which tokens a trimmed head keeps.

    Args:
        draft: Model folder, GGUF file or Hub id; None: it is made.
        keep: Number of tokens.
        where: The recipe's key, for errors.
        counts_text: Whether there is text before training, to count tokens in.

    Raises:
        DistillSpecError: There is neither text nor a folder that names the tokens.
    """
    counted = f"the {keep} tokens most frequent in the stored responses"
    if draft is None or is_missing(draft) or gguf_file(draft) is not None:
        return counted
    file = model_folder(draft) / HOT_TOKENS
    named = 0
    if file.is_file():
        fix = "export the draft again, or remove the file: then tokens are counted"
        named = len(read_json(BoundedText(file, "the tokens of a trimmed head", fix), list[int]))
    if named == keep:
        return f"the {keep} tokens in {HOT_TOKENS} of {draft}"
    if not counts_text:
        raise DistillSpecError(
            f"pair.draft_head needs text that is there before training, since {draft} has "
            + (f"{named} tokens in {HOT_TOKENS}" if named else f"no {HOT_TOKENS}"),
            where=where,
            fix="give distill.source a share of target or fixed, per sequence or batch"
            + (f", or set pair.draft_head.keep={named}" if named else ""),
        )
    return counted


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

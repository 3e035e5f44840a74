"""What a model folder says about itself, read without torch: for `--dry-run` and early errors."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.recipe.context import UNLIMITED, context_of
from distillspec.recipe.gguf_file import converted_folder, gguf_file
from distillspec.recipe.hub_id import is_hub_id
from distillspec.recipe.model_files import check_tokenizer_files, model_files, model_folder
from distillspec.typed import typed

_HEADER_LIMIT = 100_000_000


class ModelFacts(NamedTuple):
    """A local model folder in numbers. For a Hub id (`local` False) the rest is not known yet."""

    path: str
    local: bool
    architecture: str | None = None
    vocabulary: int | None = None
    hidden_size: int | None = None
    layers: int | None = None
    max_positions: int | None = None
    parameters: int | None = None
    weight_bytes: int | None = None
    dtype: str | None = None
    has_encoder: bool = False


class _Entry(NamedTuple):
    """As a safetensors file has it."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class StoredTensor(NamedTuple):
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int


def folder_facts(path: str, what: str = "model") -> ModelFacts:
    """Facts of the folder `path`, or of a Hub id `org/name`, which is only named.

    A GGUF file is only named, too, until it has been converted.

    Raises DistillSpecError for a folder that is missing, or that holds no whole model.
    """
    if is_hub_id(path):
        return ModelFacts(path, local=False)
    packed = gguf_file(path)
    if packed is not None and not converted_folder(packed).is_dir():
        return ModelFacts(path, local=True)
    folder = converted_folder(packed) if packed is not None else model_folder(path, what)
    files = model_files(folder)
    config, tensors = files.config, list(stored_tensors(files.weights).values())
    check_tokenizer_files(folder)
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    architectures = config.get("architectures")
    context = context_of(config).positions
    return ModelFacts(
        path=path,
        local=True,
        architecture=str(architectures[0])
        if isinstance(architectures, list) and architectures
        else None,
        vocabulary=_count(text, "vocab_size"),
        hidden_size=_count(text, "hidden_size", "d_model", "n_embd"),
        layers=_count(text, "num_hidden_layers", "num_layers", "n_layer"),
        max_positions=None if context == UNLIMITED else context,
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        weight_bytes=sum(tensor.bytes for tensor in tensors),
        has_encoder=bool(config.get("is_encoder_decoder")),
        dtype=max({t.dtype for t in tensors}, key=[t.dtype for t in tensors].count, default=None),
    )


def _count(config: dict[str, Any], *keys: str) -> int | None:
    """The first of these keys that holds a whole number: families name them differently."""
    values = (config.get(key) for key in keys)
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def stored_tensors(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """All that the weight files of one model hold, by name; DistillSpecError for a name twice."""
    held: dict[str, StoredTensor] = {}
    origin: dict[str, Path] = {}
    for file in files:
        for name, tensor in read_header(file).items():
            if name in held:
                raise DistillSpecError(
                    f"the weight {name} is in two files: {origin[name].name} and {file.name}",
                    where=str(file.parent),
                    mend="copy the files again from one source",
                )
            held[name], origin[name] = tensor, file
    return held


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Names, types and shapes of a safetensors file, and a check that its end is there."""
    damaged = "copy or download the file again"
    try:
        size = file.stat().st_size
        with file.open("rb") as handle:
            prefix = handle.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _HEADER_LIMIT + 1
            header: Any = json.loads(handle.read(length)) if length <= _HEADER_LIMIT else None
        named = {key: value for key, value in header.items() if key != "__metadata__"}
        entries: dict[str, _Entry] = typed(dict[str, _Entry], named)
        if any(min((*one.shape, *one.data_offsets)) < 0 for one in entries.values()):
            raise ValueError("a negative size")
        tensors = {
            key: StoredTensor(one.dtype, one.shape, one.data_offsets[1] - one.data_offsets[0])
            for key, one in entries.items()
        }
        end = 8 + length + max((one.data_offsets[1] for one in entries.values()), default=0)
    except OSError as error:
        raise DistillSpecError(
            f"the weights cannot be read: {error.strerror}", where=str(file), mend=damaged
        ) from error
    except (
        *(ValueError, KeyError, IndexError, TypeError, AttributeError),
        *(RecursionError, MemoryError),
    ) as error:
        raise DistillSpecError(
            "the weights are damaged: this is no safetensors file, or its beginning is cut"
            if size
            else "the weights are damaged: the file is empty",
            where=str(file),
            mend=damaged,
        ) from error
    if size < end:
        raise DistillSpecError(
            f"the weights are truncated: {size:,} bytes of {end:,}", where=str(file), mend=damaged
        )
    return tensors

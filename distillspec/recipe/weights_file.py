"""What safetensors files hold, by their headers, and whether config.json asks for as much.

Imports no torch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.recipe.model_files import ModelFiles
from distillspec.runtime.typed import typed

_HEADER_LIMIT = 100_000_000
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_FEWEST_BITS = 2  # that a parameter is stored in, packed


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
                    fix="copy the files again from one source",
                )
            held[name], origin[name] = tensor, file
    return held


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Names, types and shapes of a safetensors file, and a check that its end is there."""
    damaged = "copy or download the file again"
    try:
        size = file.stat().st_size
        with file.open("rb") as handle:
            # The length of the JSON header (8 bytes, little-endian), the header, then the data.
            prefix = handle.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _HEADER_LIMIT + 1
            header: Any = json.loads(handle.read(length)) if length <= _HEADER_LIMIT else None
        named = {key: value for key, value in header.items() if key != "__metadata__"}
        entries: dict[str, _Entry] = typed(dict[str, _Entry], named)
        if any(min((*entry.shape, *entry.data_offsets)) < 0 for entry in entries.values()):
            raise ValueError("a negative size")
        tensors = {
            key: StoredTensor(
                entry.dtype, entry.shape, entry.data_offsets[1] - entry.data_offsets[0]
            )
            for key, entry in entries.items()
        }
        end = 8 + length + max((entry.data_offsets[1] for entry in entries.values()), default=0)
    except OSError as error:
        raise DistillSpecError(
            f"the weights cannot be read: {error.strerror}", where=str(file), fix=damaged
        ) from error
    except (
        *(ValueError, KeyError, IndexError, TypeError, AttributeError),
        *(RecursionError, MemoryError),
    ) as error:
        # A damaged header can fail in any of these ways.
        raise DistillSpecError(
            "the weights are damaged: this is no safetensors file, or its beginning is cut"
            if size
            else "the weights are damaged: the file is empty",
            where=str(file),
            fix=damaged,
        ) from error
    if size < end:
        raise DistillSpecError(
            f"the weights are truncated: {size:,} bytes of {end:,}", where=str(file), fix=damaged
        )
    return tensors


def check_size(files: ModelFiles) -> None:
    """Refuse a config.json of a model that is far larger than the weights next to it.

    Building such a model would take all memory, or all time, before any weight is compared.

    Raises:
        DistillSpecError: The sizes do not belong together, or a weight file is damaged.
    """
    stored = stored_tensors(files.weights)
    if not stored:
        return
    inner = files.config.get("text_config")
    config = inner if isinstance(inner, dict) else files.config
    layers = next((n for key in _LAYER_KEYS if (n := _number(config, key))), 0)
    # Each layer has at least one tensor.
    if layers > len(stored):
        raise _too_large(files, f"{layers:,} layers", f"{len(stored):,} tensors")
    width = _number(config, "hidden_size")
    # Less than any model needs: the embedding, and one matrix for each layer.
    least = width * (_number(config, "vocab_size") + layers * _number(config, "intermediate_size"))
    size = sum(tensor.bytes for tensor in stored.values())
    if least * _FEWEST_BITS > 8 * size:
        raise _too_large(files, f"at least {least:,} parameters", f"{size:,} bytes")


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return int(value) if isinstance(value, int | float) and 0 < value < 1e18 else 0


def _too_large(files: ModelFiles, asked: str, there: str) -> DistillSpecError:
    return DistillSpecError(
        f"config.json asks for {asked}, and the weights next to it hold {there}",
        where=str(files.folder),
        fix="config.json and the weights do not belong together: copy both from one source",
    )

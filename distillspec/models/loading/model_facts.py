"""Facts about a model folder, read without torch: for `--dry-run` and early errors."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from distillspec.recipe.context import UNLIMITED, context_of
from distillspec.recipe.gguf_file import converted_folder, gguf_file
from distillspec.recipe.hub_id import is_hub_id
from distillspec.recipe.model_files import check_tokenizer_files, model_files, model_folder
from distillspec.recipe.weights_file import stored_tensors


class ModelFacts(NamedTuple):
    """Facts about a local model folder; for a Hub id (`local` False) only the path is known."""

    path: str
    local: bool
    architecture: str | None = None
    vocab_size: int | None = None
    hidden_size: int | None = None
    layers: int | None = None
    max_positions: int | None = None
    parameters: int | None = None
    weight_bytes: int | None = None
    dtype: str | None = None
    has_encoder: bool = False


def folder_facts(path: str, what: str = "model") -> ModelFacts:
    """Facts about the folder `path`; of a Hub id `org/name` only the path.

    A GGUF file that has not been converted yet has no other facts either.

    Raises:
        DistillSpecError: The folder is missing or incomplete.
    """
    if is_hub_id(path):
        return ModelFacts(path, local=False)
    gguf = gguf_file(path)
    if gguf is not None and not converted_folder(gguf).is_dir():
        return ModelFacts(path, local=True)
    folder = converted_folder(gguf) if gguf is not None else model_folder(path, what)
    files = model_files(folder)
    config, tensors = files.config, list(stored_tensors(files.weights).values())
    check_tokenizer_files(folder)
    # Models that also read images keep the sizes of their text model in an inner part.
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
        vocab_size=_count(text, "vocab_size"),
        hidden_size=_count(text, "hidden_size", "d_model", "n_embd"),
        layers=_count(text, "num_hidden_layers", "num_layers", "n_layer"),
        max_positions=None if context == UNLIMITED else context,
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        weight_bytes=sum(tensor.bytes for tensor in tensors),
        has_encoder=bool(config.get("is_encoder_decoder")),
        dtype=max({t.dtype for t in tensors}, key=[t.dtype for t in tensors].count, default=None),
    )


def _count(config: dict[str, Any], *keys: str) -> int | None:
    """The first of these keys with a positive integer: model families use different names."""
    values = (config.get(key) for key in keys)
    return next((value for value in values if isinstance(value, int) and value > 0), None)

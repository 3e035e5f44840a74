"""What a model folder says about itself, read without torch: for `--dry-run` and early errors."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.recipe.hub_id import is_hub_id

_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
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


class StoredTensor(NamedTuple):
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int


def folder_facts(path: str, what: str = "model") -> ModelFacts:
    """Facts of the folder `path`, or of a Hub id `org/name`, which is only named.

    Raises DistillSpecError for a folder that is missing, or that holds no whole model.
    """
    if is_hub_id(path):
        return ModelFacts(path, local=False)
    folder = model_folder(path, what)
    config = read_config(folder)
    tensors = [tensor for file in weight_files(folder) for tensor in read_header(file).values()]
    check_tokenizer_files(folder)
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    architectures = config.get("architectures") or [None]
    return ModelFacts(
        path=path,
        local=True,
        architecture=architectures[0],
        vocabulary=text.get("vocab_size"),
        hidden_size=text.get("hidden_size") or text.get("d_model"),
        layers=text.get("num_hidden_layers") or text.get("num_layers"),
        max_positions=text.get("max_position_embeddings"),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        weight_bytes=sum(tensor.bytes for tensor in tensors),
        has_encoder=bool(config.get("is_encoder_decoder")),
        dtype=max({t.dtype for t in tensors}, key=[t.dtype for t in tensors].count, default=None),
    )


def model_folder(path: str, what: str = "model") -> Path:
    """`path` as an existing folder, else DistillSpecError."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    fault = "is a file, not a model folder" if folder.exists() else "does not exist"
    raise DistillSpecError(
        f"the {what}'s folder {fault}",
        where=str(folder),
        mend="give a Hugging Face model folder (config.json, model.safetensors, tokenizer), "
        "or a Hub id org/name",
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder; DistillSpecError where it is missing or is no JSON object."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DistillSpecError(
            "the model folder has no config.json",
            where=str(folder),
            mend="point to a folder written by save_pretrained, not to its parent",
        ) from error
    except OSError as error:
        raise DistillSpecError(
            f"config.json cannot be read: {error.strerror}",
            where=str(file),
            mend="check the file's permissions",
        ) from error
    except ValueError as error:
        raise DistillSpecError(
            f"config.json is not valid JSON: {error}",
            where=str(file),
            mend="copy the file again from its source",
        ) from error
    if not isinstance(config, dict):
        raise DistillSpecError(
            "config.json holds no JSON object",
            where=str(file),
            mend="copy the file again from its source",
        )
    return config


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model, all of them present; else DistillSpecError."""
    index = folder / _INDEX
    if index.exists():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DistillSpecError(
                "the index of the weight files cannot be read",
                where=str(index),
                mend="copy the file again from its source",
            ) from error
        files = [folder / str(name) for name in sorted(names)]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise DistillSpecError(
                f"{len(missing)} of {len(files)} weight files are missing: {', '.join(missing)}",
                where=str(folder),
                mend="download or copy the missing files",
            )
        return files
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    pickled = sorted(file.name for pattern in _PICKLED for file in folder.glob(pattern))
    if pickled:
        raise DistillSpecError(
            f"the weights are pickled ({pickled[0]}); only safetensors are loaded, because "
            "unpickling runs whatever code is in the file",
            where=str(folder),
            mend="if you trust the file, convert it once: "
            f"AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained(NEW_FOLDER)",
        )
    raise DistillSpecError(
        f"the model folder holds no weights ({_WEIGHTS})",
        where=str(folder),
        mend="copy the weights into the folder, or point to a folder written by save_pretrained",
    )


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Names, types and shapes of a safetensors file, and a check that its end is there."""
    damaged = "copy or download the file again"
    try:
        size = file.stat().st_size
        with file.open("rb") as handle:
            prefix = handle.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _HEADER_LIMIT + 1
            header: Any = json.loads(handle.read(length)) if length <= _HEADER_LIMIT else None
        entries = {key: value for key, value in header.items() if key != "__metadata__"}
        tensors = {
            key: StoredTensor(
                value["dtype"],
                tuple(value["shape"]),
                value["data_offsets"][1] - value["data_offsets"][0],
            )
            for key, value in entries.items()
        }
        end = 8 + length + max((v["data_offsets"][1] for v in entries.values()), default=0)
    except OSError as error:
        raise DistillSpecError(
            f"the weights cannot be read: {error.strerror}", where=str(file), mend=damaged
        ) from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise DistillSpecError(
            "the weights are damaged: this is no safetensors file, or its beginning is cut",
            where=str(file),
            mend=damaged,
        ) from error
    if size < end:
        raise DistillSpecError(
            f"the weights are truncated: {size:,} bytes of {end:,}", where=str(file), mend=damaged
        )
    return tensors


def check_tokenizer_files(folder: Path) -> None:
    """DistillSpecError for a folder without a tokenizer."""
    if not any((folder / name).is_file() for name in _TOKENIZER):
        raise DistillSpecError(
            "the model folder has no tokenizer (tokenizer.json)",
            where=str(folder),
            mend="save the model's tokenizer into the folder: tokenizer.save_pretrained(FOLDER)",
        )

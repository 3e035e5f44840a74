"""GGUF files become Hugging Face folders, once; all other code reads only such folders."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.loading.gguf_header import ROPE_FACTORS, GgufHeader, read_header
from distillspec.models.loading.gguf_settings import carry_settings
from distillspec.models.loading.gguf_tokenizer import check_tokenizer, finish_tokenizer
from distillspec.models.loading.tied_embeddings import state_tying
from distillspec.recipe.gguf_file import check_can_convert, converted_folder
from distillspec.recipe.written_files import MODEL_FILES
from distillspec.runtime import atomic
from distillspec.runtime.notes import say_once
from distillspec.runtime.os_errors import explain

# What llama.cpp writes into `general.file_type` for files that are not quantised.
_FLOATS = {0: torch.float32, 1: torch.float16, 32: torch.bfloat16}


def converted(file: Path, explained: Callable[[], AbstractContextManager[object]]) -> Path:
    """The Hugging Face folder of a GGUF file; converts the file at the first call.

    Quantised weights are dequantised as in llama.cpp and stored in bfloat16, whose rounding error
    is small against that of the quantisation. Float weights keep their type.

    Args:
        file: The GGUF file.
        explained: Turns what transformers raises into a DistillSpecError.

    Raises:
        DistillSpecError: The package `gguf` is missing, the file is damaged, transformers cannot
            convert its architecture, or the conversion would leave something out.
    """
    folder = converted_folder(file)
    if folder.is_dir():
        return folder
    check_can_convert(file)
    with _one_at_a_time(folder):
        # Another process may have converted the file while this one waited.
        if not folder.is_dir():
            with atomic.replacing_folder(folder, MODEL_FILES) as temporary:
                dtype = convert_into(temporary, file, explained)
            say_once(f"converted {file} to {folder} ({dtype})")
    return folder


def convert_into(
    folder: Path, file: Path, explained: Callable[[], AbstractContextManager[object]]
) -> torch.dtype:
    """Write a GGUF file's model and tokenizer into an existing folder; errors as of `converted`.

    Returns:
        The type of the weights.
    """
    header = read_header(file)
    check_tokenizer(header)
    with explained():
        model, tokenizer = _read(header)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors makes files that only the owner can read
    return model.dtype


def _read(header: GgufHeader) -> tuple[PreTrainedModel, Any]:
    from transformers import GgufConfig

    # 1. The configuration, with the settings that transformers drops.
    file = header.file
    source = {"gguf_file": file.name, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(file.parent, **source)
    except ValueError:
        header.refuse(f"GGUF files of the architecture '{header.architecture}' cannot be converted")
    carry_settings(header, config)
    # 2. The weights. Each weight needs a tensor, and each tensor must be used.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        file.parent,
        config=config,
        quantization_config=GgufConfig(dequantize=True),
        dtype=_FLOATS.get(header.settings.get("general.file_type", -1), torch.bfloat16),
        output_loading_info=True,
        **source,
    )
    model, info = loaded
    assert isinstance(model, PreTrainedModel)
    if missing := sorted(info["missing_keys"]):
        raise DistillSpecError(
            f"the GGUF file lacks {len(missing)} weights of its architecture: {missing[0]}",
            where=str(file),
            fix="download the file again, or use the Hugging Face folder it was made from",
        )
    if unused := sorted(_unused(header, model) | set(info["unexpected_keys"])):
        header.refuse(
            f"the conversion would leave out tensors of the GGUF file ({len(unused)} of "
            f"{len(header.tensors)})",
            unused,
        )
    # 3. State in the configuration which weights are tied, then read the tokenizer.
    state_tying(model)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
    finish_tokenizer(header, tokenizer)
    return model, tokenizer


def _unused(header: GgufHeader, model: PreTrainedModel) -> set[str]:
    """The tensors of the file that no weight of the model was made from.

    `missing_keys` does not name them: the file may hold a bias that the configuration does not use.
    """
    from transformers.integrations.gguf.utils import is_gguf_arch_supported
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    if is_gguf_arch_supported(header.architecture):
        return set()  # read by newer code, which names them in `unexpected_keys`
    make: Any = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)
    used = get_gguf_hf_weights_map(model, make(config=model.config.to_dict()))
    # Stacked expert weights have no `.weight` suffix in the map. The configuration already holds
    # the factors of rotary frequencies.
    return {
        name
        for name in header.tensors
        if name not in used and name.removesuffix(".weight") not in used
    } - {ROPE_FACTORS}


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """The first process of a run converts the file; the others wait for it."""
    atomic.make_folder(folder.parent)
    try:
        handle = (folder.parent / f".{folder.name}.lock").open("a+")  # a pipe does not block it
    except OSError as error:
        raise explain(error, folder.parent) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

"""Model folders and Hub ids become models and tokenizers: strictly, or with an error that helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distillspec.errors import DistillSpecError
from distillspec.models.loading.checkpoint_view import checkpoint_view
from distillspec.models.loading.extra_weights import explain_extra
from distillspec.models.loading.local_folder import MODEL_FILES, TEXT_FILES, local_folder
from distillspec.models.loading.tied_embeddings import state_tying
from distillspec.models.loading.transformers_calls import explained, quiet
from distillspec.recipe.gguf_file import converted_folder, gguf_file
from distillspec.recipe.hub_id import is_hub_id
from distillspec.recipe.model_files import (
    ModelFiles,
    check_tokenizer_files,
    model_files,
    model_folder,
    read_config,
)
from distillspec.recipe.weights_file import StoredTensor, check_size, stored_tensors
from distillspec.runtime.notes import say_once

_NAMED = 4


def load_model(
    path: str,
    *,
    dtype: torch.dtype | Literal["auto"],
    device: torch.device | str = "cpu",
    trust_remote_code: bool = False,
    revision: str | None = None,
    what: str = "model",
) -> PreTrainedModel:
    """The causal or encoder-decoder model in the folder or Hub repository `path`, in eval mode.

    Every weight must be found with the right shape, and none may be left over but what is known to
    be no part of a forward, which a note names (`models.extra_weights`). Tied weights are stored
    once; two matrices that config.json calls one stay two, and the model's configuration then says
    so. Only safetensors are read, those that `recipe.model_files` chooses. dtype: "auto" is the one
    they are stored in. what: names the model in errors ("target", "draft"). Raises
    DistillSpecError.
    """
    folder = local_folder(path, revision, what, MODEL_FILES, trust_remote_code)
    files = model_files(folder)
    check_size(files)
    stored = stored_tensors(files.weights)
    model, info = _from_pretrained(files, dtype, trust_remote_code, path, what)
    notes = [*files.notes, *_check_loading(info, stored, files, path, what)]
    if state_tying(model):
        notes.append(
            f"{path}: config.json ties the output head to the embedding, but the weights are two "
            "matrices: both are used as they are stored"
        )
    for note in notes:
        say_once(note)
    model.name_or_path = path
    try:
        torch.nn.Module.to(model, device)
    except torch.OutOfMemoryError as error:
        raise DistillSpecError(
            f"the {what} does not fit into the memory of {device}",
            where=path,
            fix="take a smaller one, or a larger device; several processes can hold a target "
            "together for training (hardware.shard_target=true)",
        ) from error
    model.eval()
    return model


def _from_pretrained(
    files: ModelFiles,
    dtype: torch.dtype | Literal["auto"],
    trust_remote_code: bool,
    path: str,
    what: str,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model of these files alone, and what transformers tells about its weights."""
    has_encoder = bool(files.config.get("is_encoder_decoder"))
    kind: Any = AutoModelForSeq2SeqLM if has_encoder else AutoModelForCausalLM
    with (
        checkpoint_view(files, with_code=trust_remote_code) as view,
        explained(path, what, view),
        quiet(),
    ):
        model, info = kind.from_pretrained(
            view,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    assert isinstance(model, PreTrainedModel)
    return model, info


def empty_model(
    path: str,
    *,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    revision: str | None = None,
    what: str = "model",
) -> PreTrainedModel:
    """The model of `load_model` without its weights, on the CPU: memory that nobody has touched.

    Only the configuration is read. No two weights are one tensor. Raises DistillSpecError.
    """
    folder = local_folder(path, revision, what, TEXT_FILES, trust_remote_code)
    has_encoder = bool(read_config(folder).get("is_encoder_decoder"))
    kind: Any = AutoModelForSeq2SeqLM if has_encoder else AutoModelForCausalLM
    with explained(path, what), quiet():
        config = AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
        with torch.device("meta"):
            model = kind.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    assert isinstance(model, PreTrainedModel)
    with _untouched():
        model.to_empty(device="cpu")
    model.name_or_path = path
    model.eval()
    return model


@contextmanager
def _untouched() -> Iterator[None]:
    """Within, new memory is not written to, deterministic mode or not."""
    settings: Any = torch.utils.deterministic
    fills = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = fills


def fetch_model(
    path: str, *, trust_remote_code: bool = False, revision: str | None = None, what: str = "model"
) -> None:
    """See to it that the folder or Hub repository `path` is on this machine's disk."""
    local_folder(path, revision, what, MODEL_FILES, trust_remote_code)


def loaded_folder(path: str, revision: str | None = None) -> Path:
    """The folder that `path` was loaded from; nothing is downloaded or converted.

    Of a model of the Hub it is the snapshot in the cache, which has the name of its commit.
    """
    if (packed := gguf_file(path)) is not None:
        return converted_folder(packed)
    if not is_hub_id(path):
        return model_folder(path)
    return Path(snapshot_download(path, revision=revision, local_files_only=True))


def load_tokenizer(
    path: str,
    *,
    trust_remote_code: bool = False,
    revision: str | None = None,
    what: str = "model",
) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder or Hub repository `path`; raises DistillSpecError."""
    folder = local_folder(path, revision, what, TEXT_FILES, trust_remote_code)
    check_tokenizer_files(folder)
    with explained(path, f"{what}'s tokenizer"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
        assert isinstance(tokenizer, PreTrainedTokenizerBase)
        if not isinstance(tokenizer.model_max_length, int | float):  # compared when it encodes
            raise TypeError("model_max_length of tokenizer_config.json is no number")
        tokenizer("")  # other settings of the wrong type show here
    return tokenizer


def _check_loading(
    info: dict[str, Any], stored: dict[str, StoredTensor], files: ModelFiles, path: str, what: str
) -> list[str]:
    """Notes on weights that are left out; DistillSpecError for weights that do not fit."""
    fix = "config.json and the weights do not belong together: copy both from one source"
    if mismatched := sorted(info["mismatched_keys"]):
        name, shape, needed = mismatched[0]
        raise DistillSpecError(
            f"{len(mismatched)} weights of the {what} have a wrong shape: {name} is "
            f"{tuple(shape)}, config.json asks for {tuple(needed)}",
            where=path,
            fix=fix,
        )
    if missing := sorted(info["missing_keys"]):
        raise DistillSpecError(
            f"{len(missing)} weights of the {what} are missing: {_named(missing)}",
            where=path,
            fix=fix,
        )
    extra = explain_extra(info["unexpected_keys"], stored, files.config)
    if extra.unknown:
        raise DistillSpecError(
            f"the {what}'s file holds {len(extra.unknown)} weights that the model has no place "
            f"for: {_named(extra.unknown)}",
            where=path,
            fix=f"{fix}; or, if the model is right without them, write it again: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)",
        )
    return [
        f"{path}: {reason} are left out ({_named(names)})" for reason, names in extra.known.items()
    ]


def _named(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")

"""Load models and tokenizers from folders and Hub ids. All weights are checked."""

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
    """The causal or encoder-decoder model of a folder or Hub repository, in eval mode.

    The file must hold every weight in the right shape. It may hold other weights only if they are
    known to have no effect (`loading.extra_weights`); a note names them. Tied weights are stored
    once. If config.json ties two matrices that are stored separately, both are used, and the loaded
    configuration is corrected. Only the safetensors files that `recipe.model_files` chooses are
    read.

    Args:
        path: A folder, a GGUF file or a Hub id.
        dtype: Type of the weights; "auto" is the stored type.
        device: The device of the model.
        trust_remote_code: Whether code in the folder may run.
        revision: Branch, tag or commit of a Hub repository.
        what: Name of the model in errors ("target", "draft").

    Raises:
        DistillSpecError: The folder is missing, or its files do not fit together.
    """
    # 1. Files are chosen and checked before transformers sees them.
    folder = local_folder(path, revision, what, MODEL_FILES, trust_remote_code)
    files = model_files(folder)
    check_size(files)
    # 2. Load, then compare what was stored with what the model uses.
    stored = stored_tensors(files.weights)
    model, info = _from_pretrained(files, dtype, trust_remote_code, path, what)
    notes = [*files.notes, *_check_loading(info, stored, files, path, what)]
    # 3. The configuration follows the weights, not the other way round.
    if state_tying(model):
        notes.append(
            f"{path}: config.json ties the output head to the embedding, but the weights are two "
            "matrices: both are used as they are stored"
        )
    for note in notes:
        say_once(note)
    model.name_or_path = path
    _move(model, device, path, what)
    model.eval()
    return model


def _move(model: PreTrainedModel, device: torch.device | str, path: str, what: str) -> None:
    try:
        torch.nn.Module.to(model, device)
    except torch.OutOfMemoryError as error:
        raise DistillSpecError(
            f"the {what} does not fit into the memory of {device}",
            where=path,
            fix="use a smaller model or a larger device; several processes can share a target "
            "in training (hardware.shard_target=true)",
        ) from error


def _from_pretrained(
    files: ModelFiles,
    dtype: torch.dtype | Literal["auto"],
    trust_remote_code: bool,
    path: str,
    what: str,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model of these files, and transformers' report on its weights."""
    has_encoder = bool(files.config.get("is_encoder_decoder"))
    model_class: Any = AutoModelForSeq2SeqLM if has_encoder else AutoModelForCausalLM
    with (
        checkpoint_view(files, with_code=trust_remote_code) as view,
        explained(path, what, view),
        quiet(),
    ):
        model, info = model_class.from_pretrained(
            view,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            use_safetensors=True,
            # Mismatches come back in `info`: `_check_loading` refuses them by name.
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
    """The model of `load_model` with uninitialised weights, on the CPU.

    Only the configuration is read. No two weights share memory.

    Raises:
        DistillSpecError: The folder is missing, or transformers cannot build the model.
    """
    folder = local_folder(path, revision, what, TEXT_FILES, trust_remote_code)
    has_encoder = bool(read_config(folder).get("is_encoder_decoder"))
    model_class: Any = AutoModelForSeq2SeqLM if has_encoder else AutoModelForCausalLM
    with explained(path, what), quiet():
        config = AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
        # On `meta` a weight has no memory, so its initialisation costs nothing.
        with torch.device("meta"):
            model = model_class.from_config(
                config, dtype=dtype, trust_remote_code=trust_remote_code
            )
    assert isinstance(model, PreTrainedModel)
    with _untouched():
        model.to_empty(device="cpu")
    model.name_or_path = path
    model.eval()
    return model


@contextmanager
def _untouched() -> Iterator[None]:
    """Within this context, torch does not write to new memory, even in deterministic mode."""
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
    """Download or convert `path` if it is not yet on this disk."""
    local_folder(path, revision, what, MODEL_FILES, trust_remote_code)


def loaded_folder(path: str, revision: str | None = None) -> Path:
    """The folder that `path` was loaded from; nothing is downloaded or converted.

    For a Hub id this is the snapshot in the cache, whose name is the commit.
    """
    if (gguf := gguf_file(path)) is not None:
        return converted_folder(gguf)
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
    """The tokenizer of a folder or Hub repository.

    Raises:
        DistillSpecError: The folder has no tokenizer, or a damaged one.
    """
    folder = local_folder(path, revision, what, TEXT_FILES, trust_remote_code)
    check_tokenizer_files(folder)
    with explained(path, f"{what}'s tokenizer"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
        assert isinstance(tokenizer, PreTrainedTokenizerBase)
        if not isinstance(tokenizer.model_max_length, int | float):  # compared when it encodes
            raise TypeError("model_max_length of tokenizer_config.json is no number")
        tokenizer("")  # settings of the wrong type raise in this call
    return tokenizer


def _check_loading(
    info: dict[str, Any], stored: dict[str, StoredTensor], files: ModelFiles, path: str, what: str
) -> list[str]:
    """Notes on weights that are left out.

    Raises:
        DistillSpecError: Weights are missing, unknown or of the wrong shape.
    """
    fix = "config.json and the weights are of different models: copy both from one source"
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
            f"the {what}'s file holds {len(extra.unknown)} weights that the model does not "
            f"use: {_named(extra.unknown)}",
            where=path,
            fix=f"{fix}; or, if the model is complete without them, save it again: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)",
        )
    return [
        f"{path}: {reason} are left out ({_named(names)})" for reason, names in extra.known.items()
    ]


def _named(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")

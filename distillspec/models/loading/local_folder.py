"""The folder on this disk that belongs to a path, a GGUF file or a Hub id."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from distillspec.errors import DistillSpecError
from distillspec.models.loading.gguf_conversion import converted
from distillspec.models.loading.transformers_calls import explained, quiet
from distillspec.recipe.gguf_file import gguf_file
from distillspec.recipe.hub_id import is_hub_id
from distillspec.recipe.model_files import model_folder

TEXT_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
MODEL_FILES = [*TEXT_FILES, "*.safetensors"]


def local_folder(
    path: str, revision: str | None, what: str, patterns: list[str], trust_remote_code: bool
) -> Path:
    """The model folder, after downloading or converting it if needed.

    Args:
        path: A folder, a GGUF file or a Hub id.
        revision: Branch, tag or commit of a Hub repository.
        what: Name of the model in errors ("target", "draft").
        patterns: Names of the files to download.
        trust_remote_code: Whether to download code too.
    """
    if (gguf := gguf_file(path)) is not None:
        with quiet():
            return converted(gguf, lambda: explained(path, what))
    if not is_hub_id(path):
        return model_folder(path, what)
    if trust_remote_code:
        patterns = [*patterns, "*.py"]
    return _snapshot(path, revision, what, patterns)


def _snapshot(path: str, revision: str | None, what: str, patterns: list[str]) -> Path:
    """The folder of a Hub repository in the cache, downloaded if needed."""
    where = f"{path}@{revision}" if revision else path
    try:
        return Path(
            snapshot_download(
                path,
                revision=revision,
                allow_patterns=patterns,
                # Second copies of the weights, in the formats of the models' makers.
                ignore_patterns=["consolidated*", "original/*"],
            )
        )
    # GatedRepoError comes first: it is a subclass of RepositoryNotFoundError.
    except GatedRepoError as error:
        raise DistillSpecError(
            f"access to the {what} on the Hugging Face Hub is restricted",
            where=where,
            fix="accept its licence on the Hub, then set HF_TOKEN or run `hf auth login`",
        ) from error
    except RevisionNotFoundError as error:
        raise DistillSpecError(
            f"the {what}'s repository has no such revision",
            where=where,
            fix="set a branch, tag or commit that exists",
        ) from error
    except RepositoryNotFoundError as error:
        raise DistillSpecError(
            f"the {what} is neither a local folder nor a repository of the Hugging Face Hub",
            where=where,
            fix="check the spelling; a private repository needs HF_TOKEN",
        ) from error
    except HFValidationError as error:
        raise DistillSpecError(
            f"the {what} is neither a local folder nor a well-formed Hub id",
            where=where,
            fix="set an existing folder, or org/name",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise DistillSpecError(
            f"the {what} is not a local folder, and the Hugging Face Hub cannot be reached",
            where=where,
            fix="check the path; for a Hub id, connect to the network and unset HF_HUB_OFFLINE, "
            "or download it elsewhere and set its folder",
        ) from error

"""Upload of an exported draft to the Hugging Face Hub. The token is never shown."""

from __future__ import annotations

import logging
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.constants import is_offline_mode
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from distillspec.errors import DistillSpecError

log = logging.getLogger(__name__)

_NEEDED = ("config.json", "model.safetensors", "tokenizer_config.json", "README.md")

# What the HTTP library below huggingface_hub raises when no answer comes at all; the library, and
# with it the class, changed between versions of huggingface_hub.
_TRANSPORT: type[Exception] = next(
    kind
    for kind in HfHubHTTPError.__mro__
    if issubclass(kind, Exception) and kind.__name__ == "HTTPError"
)


def check_repository(repository: str) -> None:
    """Raise DistillSpecError unless `repository` is `user/name`. Needs no network."""
    try:
        validate_repo_id(repository)
        fault = None if repository.count("/") == 1 else "it must be user/name"
    except HFValidationError as error:
        fault = str(error).splitlines()[0]
    if fault is not None:
        raise DistillSpecError(
            f"{repository!r} is not the name of a Hub repository: {fault}",
            where="export.push",
            fix="give user/name: letters, digits, '-', '_' and '.'",
        )


def push(folder: Path, repository: str, private: bool) -> str:
    """Upload `folder` to the Hub. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are respected.

    Args:
        folder: An exported draft, which is not changed.
        repository: user/name; created if it does not exist.
        private: Visibility of a new repository. An existing one keeps its visibility.

    Returns:
        The URL of the repository.

    Raises:
        DistillSpecError: The upload is not possible.
    """
    # 1. All checks that need no network.
    check_repository(repository)
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise DistillSpecError(
            f"not an exported draft: it has no {', '.join(missing)}",
            where=str(folder),
            fix="give the draft/ folder of a finished run, or export first",
        )
    if is_offline_mode():
        raise _offline(repository)
    token = get_token()
    if token is None:
        raise DistillSpecError(
            "the upload needs a token of the Hugging Face Hub, and none is set",
            where=f"export.push: {repository}",
            fix="set HF_TOKEN, or run `hf auth login`, with a token that has write access",
        )
    # 2. Create the repository and upload.
    api = HfApi(token=token)
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Draft model for speculative decoding, exported by distillspec",
        )
    except OfflineModeIsEnabled as error:
        raise _offline(repository) from error
    except HfHubHTTPError as error:
        # `from None`: the Hub's error may quote request headers, with the token.
        raise _refused(repository, error) from None
    except (_TRANSPORT, OSError) as error:
        raise DistillSpecError(
            f"the Hugging Face Hub cannot be reached: {_without(token, str(error))}",
            where=f"{api.endpoint}/{repository}",
            fix=f"check the network, then run: distillspec export RUN-FOLDER --push {repository}; "
            f"the folder is ready: {folder}",
        ) from None
    log.info("uploaded %s to %s", folder, made.url)
    return made.url


def _offline(repository: str) -> DistillSpecError:
    return DistillSpecError(
        "the upload needs the network, but HF_HUB_OFFLINE is set",
        where=f"export.push: {repository}",
        fix="unset HF_HUB_OFFLINE, or upload the folder from another machine",
    )


def _refused(repository: str, error: HfHubHTTPError) -> DistillSpecError:
    """An error for the Hub's answer. Its text is not shown, since it may quote request headers."""
    status = error.response.status_code
    if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
        return DistillSpecError(
            f"this token has no write access to the repository (HTTP {status})",
            where=f"export.push: {repository}",
            fix="check the user name, and that the token has write access",
        )
    return DistillSpecError(
        f"the Hub refused the upload (HTTP {status})",
        where=f"export.push: {repository}",
        fix="try again later; an interrupted upload is resumed",
    )


def _without(secret: str, text: str) -> str:
    return text.replace(secret, "***")

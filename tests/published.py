"""A tiny wheel that brings a GGUF file, as the wheels of `distillspec.recipe.published` do."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from distillspec.recipe.published import PublishedModel
from tests.models.gguf_files import written

_INFO = "tiny_model-1.0.dist-info"
_METADATA = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
_WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def tiny_wheel(model: Path, folder: Path) -> PublishedModel:
    """Write the wheel of the model folder `model` into `folder`.

    Its requirement does not exist, so an installation would fail.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(written(model, folder / "tiny.gguf"), "tiny_model/tiny.gguf")
        for name, text in (("METADATA", _METADATA), ("WHEEL", _WHEEL), ("LICENSE", "terms\n")):
            archive.writestr(f"{_INFO}/{name}", text)
        archive.writestr(f"{_INFO}/RECORD", "")
    return PublishedModel(
        name="tiny",
        hub_id="makers/Tiny-Instruct",
        wheel="tiny-model",
        version="1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        gguf="tiny_model/tiny.gguf",
        licence=f"{_INFO}/LICENSE",
        licence_id="apache-2.0",
    )

"""A model that comes as a GGUF file: which file it is, and where its conversion is kept.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from pathlib import Path

from distillspec.errors import DistillSpecError
from distillspec.recipe.builtin import located
from distillspec.recipe.model_files import check_plain_files, is_missing, model_folder
from distillspec.recipe.published import CONVERTED

_VERSION = 2  # of the conversion: a new one does not use what an older one has left out

_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_PICKLED = re.compile(  # complete models, not the state of an optimizer next to one
    r"(pytorch_model|model|consolidated)\b.*\.(bin|pt|pth|ckpt|bin\.index\.json)"
    r"|tf_model\.h5|flax_model\.msgpack"
)
_NAMED = 3


def gguf_file(path: str) -> Path | None:
    """The GGUF file that `path` is, or that the folder `path` holds in place of safetensors.

    Raises:
        DistillSpecError: A folder with several, or with pickled weights as well, or a file that is
            one part of several.
    """
    given = Path(os.path.expanduser(located(path)))
    names: list[str] = []
    if is_missing(path):
        return None
    if not os.path.isdir(given):
        found = [given] if given.suffix == ".gguf" else []
    else:
        names = os.listdir(model_folder(path))
        # A folder with safetensors is an ordinary model folder.
        if any(name.endswith(".safetensors") for name in names):
            return None
        found = [given / name for name in sorted(names) if name.endswith(".gguf")]
        found = [file for file in found if not file.name.startswith("mmproj")]  # sees images
    if not found:
        return None
    if _PART.search(found[0].name):
        raise DistillSpecError(
            f"{found[0].name} is one part of a model",
            where=str(found[0]),
            fix="merge the parts once (llama.cpp: llama-gguf-split --merge FIRST-PART OUT.gguf), "
            "and name OUT.gguf",
        )
    if len(found) > 1:
        some = ", ".join(file.name for file in found[:_NAMED])
        raise DistillSpecError(
            f"the folder holds {len(found)} GGUF files, and each is a model: {some}"
            f"{', ...' if len(found) > _NAMED else ''}",
            where=str(given),
            fix="name one of the files in place of the folder",
        )
    if pickled := sorted(filter(_PICKLED.fullmatch, names)):
        raise DistillSpecError(
            f"the folder holds two models: {found[0].name} and {pickled[0]}",
            where=str(given),
            fix="name the GGUF file in place of the folder to take it; or, for the other, convert "
            "it to safetensors",
        )
    check_plain_files(found[0].parent)
    return found[0]


def converted_folder(file: Path) -> Path:
    """Where the Hugging Face folder of a GGUF file is kept.

    It is another one once the file, or the way it is converted, changes.
    """
    status = file.stat()
    mark = f"{file.resolve()} {status.st_size} {status.st_mtime_ns} {_VERSION}"
    return CONVERTED / f"{file.stem}-{hashlib.sha256(mark.encode()).hexdigest()[:10]}"


def check_can_convert(file: Path) -> None:
    """DistillSpecError where the package that reads GGUF files is missing."""
    if importlib.util.find_spec("gguf") is None:
        raise DistillSpecError(
            "a GGUF file is converted once before it is used, which needs the package 'gguf'",
            where=str(file),
            fix="pip install gguf; or name the Hugging Face folder that the file was made from",
        )

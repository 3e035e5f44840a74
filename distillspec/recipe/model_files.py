"""Which files of a model folder make the model: decided here, for every reader. Imports no torch.

The dry run, the facts, the digests and the loader all go by `model_files`, so that the weights that
are checked are the weights that are loaded.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

from distillspec.errors import DistillSpecError
from distillspec.recipe.builtin import located
from distillspec.recipe.published import check_fetched, published_at
from distillspec.recipe.written_files import SHARED_EMBEDDINGS

CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PART = re.compile(r"model-\d+-of-\d+\.safetensors")
_ADAPTER = "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_READ = (".json", ".safetensors", ".txt", ".model", ".jinja", ".gguf")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_COPY_AGAIN = "copy or download the file again"


class ModelFiles(NamedTuple):
    """What of a folder is loaded.

    Attributes:
        folder: The folder.
        config: config.json.
        weights: safetensors files, in the order of their names.
        listing: The index that names them; None for a single file.
        notes: What lies there and is not loaded, for the user.
    """

    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]
    listing: Path | None
    notes: tuple[str, ...]


def model_folder(path: str, what: str = "model") -> Path:
    """`path` as an existing folder that can be read, else DistillSpecError."""
    folder = Path(os.path.expanduser(located(path)))
    if (published := published_at(folder)) is not None:
        check_fetched(published)
    try:
        mode = folder.stat().st_mode
    except (OSError, ValueError) as error:
        missing = not isinstance(error, PermissionError)
        reason = "does not exist" if missing else "cannot be read: Permission denied"
        raise DistillSpecError(
            f"the {what}'s folder {reason}",
            where=path,
            fix="give a Hugging Face model folder (config.json, model.safetensors, tokenizer), "
            "or a Hub id org/name"
            if missing
            else "change the permissions of the folder and of those that it lies in",
        ) from error
    if not stat.S_ISDIR(mode):
        raise DistillSpecError(
            f"the {what}'s folder is a file, not a model folder",
            where=str(folder),
            fix="give the folder that holds config.json",
        )
    _entries(folder)
    if (folder / SHARED_EMBEDDINGS).is_file():
        name = "/".join(folder.absolute().parts[-2:])
        raise DistillSpecError(
            f"the {what} lies here as it is shipped: without the embeddings of its target",
            where=str(folder),
            fix=f"name it {name}: its whole folder is made by `distillspec fetch`",
        )
    return folder


def is_missing(path: str) -> bool:
    """Whether nothing is at `path`; a place that this user may not look into is not missing."""
    try:
        os.stat(os.path.expanduser(located(path)))
    except PermissionError:
        return False
    except (OSError, ValueError):
        return True
    return False


def model_files(folder: Path) -> ModelFiles:
    """The files that make the model in `folder`.

    - config.json may name the weights (`transformers_weights`), as transformers has it.
    - Else they are `model.safetensors`, or the files that `model.safetensors.index.json` lists.
    - Names in these files must stay inside the folder; symbolic links are followed, since the Hub's
      cache is made of them.
    - An adapter next to complete weights is not loaded, and a note names it.

    Raises:
        DistillSpecError: Nothing to load, files that are missing or are no plain files, or files
            that can be read in two ways.
    """
    names = _entries(folder)
    check_plain_files(folder)
    if CONFIG not in names and _ADAPTER in names:
        _refuse_adapter(folder)
    config = read_config(folder)
    chosen = config.get("transformers_weights")
    if chosen is not None:
        file = _inside(folder, chosen, folder / CONFIG)
        index = file if file.name.endswith(".index.json") else None
        weights = _listed(folder, file) if index else (file,)
    else:
        index = folder / _INDEX if _INDEX in names else None
        weights = _listed(folder, index) if index else (folder / _WEIGHTS,)
        # Next to an index or to parts, it is unclear which of them is the model.
        if _WEIGHTS in names:
            _check_one_model(folder, names, weights)
    if index is None and not weights[0].is_file():
        _refuse_weights(folder, names, weights[0])
    return ModelFiles(folder, config, weights, index, _notes(folder, names, config))


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder; DistillSpecError where it is missing or is no JSON object."""
    if not (folder / CONFIG).exists():
        raise DistillSpecError(
            "the model folder has no config.json",
            where=str(folder),
            fix="point to a folder written by save_pretrained, not to its parent",
        )
    return _read_json(folder / CONFIG)


def check_tokenizer_files(folder: Path) -> None:
    """DistillSpecError for a folder without a tokenizer."""
    check_plain_files(folder)
    if not any((folder / name).is_file() for name in _TOKENIZER):
        raise DistillSpecError(
            "the model folder has no tokenizer (tokenizer.json)",
            where=str(folder),
            fix="save the model's tokenizer into the folder: tokenizer.save_pretrained(FOLDER)",
        )


def check_plain_files(folder: Path) -> None:
    """DistillSpecError for a file that a loader would read and that is no readable, plain file."""
    for name in sorted(_entries(folder)):
        if not name.endswith(_READ):
            continue
        path = folder / name
        try:
            mode = path.stat().st_mode
            if stat.S_ISREG(mode):
                path.open("rb").close()  # whether this user may
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            raise DistillSpecError(
                f"{name} is a link to a file that does not exist"
                if gone
                else f"{name} cannot be read: {error.strerror}",
                where=str(path),
                fix="download or copy the folder again" if gone else "change its permissions",
            ) from error
        if not stat.S_ISREG(mode):
            raise DistillSpecError(
                f"{name} is {_kind(mode)}, not a file",
                where=str(path),
                fix="move it out of the model folder, and put the file there",
            )


# --- names and files -----------------------------------------------------------------------------


def _entries(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError as error:
        raise DistillSpecError(
            f"the model folder cannot be read: {error.strerror}",
            where=str(folder),
            fix="change its permissions",
        ) from error


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device or a socket"


def _read_json(file: Path) -> dict[str, Any]:
    fault = "is not valid JSON"
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it holds no JSON object")
    except OSError as error:
        raise DistillSpecError(
            f"{file.name} cannot be read: {error.strerror}",
            where=str(file),
            fix="change its permissions",
        ) from error
    except RecursionError as error:
        raise DistillSpecError(
            f"{file.name} {fault}: it is nested too deeply", where=str(file), fix=_COPY_AGAIN
        ) from error
    except ValueError as error:
        reason = error if file.stat().st_size else "it is empty"
        raise DistillSpecError(
            f"{file.name} {fault}: {reason}", where=str(file), fix=_COPY_AGAIN
        ) from error
    return value


def _listed(folder: Path, index: Path) -> tuple[Path, ...]:
    """The files that an index lists, all of them present."""
    listed = _read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise DistillSpecError(
            "the index of the weight files has no weight_map", where=str(index), fix=_COPY_AGAIN
        )
    files = sorted({_inside(folder, name, index) for name in listed.values()})
    missing = [file.name for file in files if not os.path.isfile(file)]
    if missing:
        raise DistillSpecError(
            f"{len(missing)} of {len(files)} weight files are missing: {', '.join(missing)}",
            where=str(folder),
            fix="download or copy the missing files; if the folder was merged into one file, "
            f"delete {index.name}",
        )
    return tuple(files)


def _inside(folder: Path, name: object, said_by: Path) -> Path:
    """The file `name` of the folder; DistillSpecError for a name that leads out of it."""
    parts = PurePosixPath(name).parts if isinstance(name, str) and "\0" not in name else ()
    if not parts or ".." in parts or parts[0].startswith("/") or "\\" in str(name):
        raise DistillSpecError(
            f"{said_by.name} names a weight file outside of the folder: {name!r}",
            where=str(said_by),
            fix="weight files lie in the model's own folder; do not trust this download",
        )
    file = folder.joinpath(*parts)
    if not file.name.endswith((".safetensors", ".safetensors.index.json")):
        raise DistillSpecError(
            f"{said_by.name} names a weight file that is no safetensors: {name!r}",
            where=str(said_by),
            fix="save the model again with save_pretrained, as safetensors",
        )
    # Files in a subfolder have not been checked yet.
    if len(parts) > 1 and os.path.isdir(file.parent):
        check_plain_files(file.parent)
    return file


def _notes(folder: Path, names: set[str], config: Mapping[str, Any]) -> tuple[str, ...]:
    """Ignored files next to the weights; an adapter for these weights is refused."""
    if _ADAPTER not in names:
        return ()
    base = _read_json(folder / _ADAPTER).get("base_model_name_or_path")
    # The adapter belongs to this model if it names its origin or its folder.
    own = {config.get("_name_or_path"), str(folder), str(folder.resolve())} - {None, ""}
    if isinstance(base, str) and (
        base in own or Path(os.path.expanduser(base)).absolute() == folder
    ):
        raise DistillSpecError(
            f"the folder holds a model and an adapter for it ({_ADAPTER}): with or without?",
            where=str(folder),
            fix="merge the adapter (peft: merge_and_unload, save_pretrained into a new folder), "
            f"or move {_ADAPTER} out of the folder to leave it out",
        )
    named = f" (of {base})" if isinstance(base, str) else ""
    return (f"{folder}: the complete weights are loaded; the adapter next to them{named} is not",)


def _check_one_model(folder: Path, names: set[str], weights: tuple[Path, ...]) -> None:
    """DistillSpecError where `model.safetensors` is not the one model of its folder."""
    whole = (folder / _WEIGHTS,)
    parts = sorted(name for name in names if _PART.fullmatch(name)) if weights == whole else []
    # Where there is an index, it lists only this file.
    if weights == whole and (not parts or _INDEX in names):
        return
    other = (
        f"{parts[0]}, a part of another one, without {_INDEX}"
        if parts
        else f"the {len(weights)} files that {_INDEX} lists"
    )
    raise DistillSpecError(
        f"the folder holds two models: {_WEIGHTS}, and {other}",
        where=str(folder),
        fix="move the one that is out of date to another folder"
        + (", and finish the copy of the other" if parts else ""),
    )


def _refuse_adapter(folder: Path) -> NoReturn:
    base = _read_json(folder / _ADAPTER).get("base_model_name_or_path")
    raise DistillSpecError(
        f"the folder holds an adapter alone, and no model (its base: {base})",
        where=str(folder),
        fix="merge it into its base once: PeftModel.from_pretrained(BASE, FOLDER)"
        ".merge_and_unload().save_pretrained(NEW_FOLDER), and the tokenizer next to it",
    )


def _refuse_weights(folder: Path, names: set[str], wanted: Path) -> NoReturn:
    """Nothing to load: say what there is instead."""
    pickled = sorted(name for name in names if name.endswith(_PICKLED))
    others = sorted(name for name in names if name.endswith(".safetensors") and name != _ADAPTER)
    others = [name for name in others if not name.startswith("adapter_")]
    if others:
        raise DistillSpecError(
            f"the model folder holds no weights ({wanted.name}); it has {', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}",
            where=str(folder),
            fix=f"of several files copy {_INDEX} next to them; a single one (a variant) is to be "
            f"called {_WEIGHTS}",
        )
    if _ADAPTER in names:
        _refuse_adapter(folder)
    if pickled:
        raise DistillSpecError(
            f"the weights are pickled ({pickled[0]}); only safetensors are loaded, because "
            "unpickling runs whatever code is in the file",
            where=str(folder),
            fix="if you trust the file, convert it once: "
            f"AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained(NEW_FOLDER)",
        )
    raise DistillSpecError(
        f"the model folder holds no weights ({wanted.name})",
        where=str(folder),
        fix="copy the weights into the folder, or point to a folder written by save_pretrained",
    )

"""A draft that is stored without its embeddings, because they are the target's.

In a draft of two layers with 49,152 tokens, 80 % of the weights are embeddings. If training has not
changed them, the target's folder gives them back.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.recipe.written_files import SHARED_EMBEDDINGS
from distillspec.runtime import atomic
from distillspec.runtime.plain_files import BoundedText, read_json

WEIGHTS = "model.safetensors"
_METADATA = {"format": "pt"}  # transformers looks for it


class SharedEmbeddings(NamedTuple):
    """The content of SHARED_EMBEDDINGS.

    Attributes:
        target: The target, as a recipe names it.
        weight: Name of the weight, in the files of both models.
        sha256: SHA-256 (hex) of its bytes.
    """

    target: str
    weight: str
    sha256: str


def leave_out(draft: Path, target: Path, folder: Path, *, name: str, weight: str) -> None:
    """Copy a draft's folder without the weight that it shares with its target.

    Args:
        draft: Folder of the draft, with one file of weights.
        target: Folder of the target, with one file of weights.
        folder: Where to write; it must not exist.
        name: The target, as a recipe names it.
        weight: The shared weight, such as `model.embed_tokens.weight`.

    Raises:
        DistillSpecError: The two weights differ.
    """
    weights, shared = load_file(draft / WEIGHTS), load_file(target / WEIGHTS).get(weight)
    own = weights.pop(weight, None)
    if own is None or shared is None or not torch.equal(own, shared):
        raise DistillSpecError(
            f"the draft's {weight} is not the target's, so it cannot be left out",
            where=str(draft),
            fix="train with optimizer.freeze_embeddings=true and without hidden_size, or ship the "
            "whole folder",
        )
    shutil.copytree(draft, folder, ignore=shutil.ignore_patterns(WEIGHTS))
    save_file(weights, folder / WEIGHTS, _METADATA)
    (folder / WEIGHTS).chmod(0o644)
    shared_embeddings = SharedEmbeddings(name, weight, _digest(own))
    atomic.write_json(folder / SHARED_EMBEDDINGS, shared_embeddings._asdict())


def put_back(stored: Path, target: Path, folder: Path) -> None:
    """Write the whole draft, a plain Hugging Face folder, into an existing `folder`.

    Args:
        stored: What `leave_out` has written.
        target: Folder of the target.
        folder: Where to write.

    Raises:
        DistillSpecError: The target's weight is another one than the draft's was.
    """
    record = read_json(
        BoundedText(
            stored / SHARED_EMBEDDINGS,
            "the record of the shared embeddings",
            "copy the draft again",
        ),
        SharedEmbeddings,
    )
    shared = load_file(target / WEIGHTS).get(record.weight)
    if shared is None or _digest(shared) != record.sha256:
        raise DistillSpecError(
            f"{record.weight} of this target is not the one that the draft was trained with",
            where=str(target),
            fix=f"fetch the target {record.target} again",
        )
    weights = load_file(stored / WEIGHTS)
    shutil.copytree(
        stored,
        folder,
        ignore=shutil.ignore_patterns(WEIGHTS, SHARED_EMBEDDINGS),
        dirs_exist_ok=True,
    )
    save_file({**weights, record.weight: shared}, folder / WEIGHTS, _METADATA)
    (folder / WEIGHTS).chmod(0o644)


def _digest(weight: Tensor) -> str:
    data = weight.contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(data.data).hexdigest()

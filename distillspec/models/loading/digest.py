"""A digest of a set of weights: equal weights have equal digests, in memory and on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from distillspec.recipe.model_files import model_files, model_folder


def model_digest(model: nn.Module | str | Path) -> str:
    """SHA-256 (hex) over the weights of a model, or of a model folder as stored.

    Tied weights count once, under the name they are saved by. A folder and the model loaded from it
    in the stored type have the same digest, unless loading leaves weights of the folder out.
    """
    if isinstance(model, nn.Module):
        return weights_digest(model.named_parameters())
    return weights_digest(_stored(model_files(model_folder(str(model))).weights))


def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes; the order of `weights` does not matter."""
    lines = []
    for name, weight in weights:
        # As bytes, because numpy has no bfloat16.
        data = weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest = hashlib.sha256(data.data).hexdigest()
        lines.append(f"{name} {weight.dtype} {tuple(weight.shape)} {digest}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _stored(files: Sequence[Path]) -> Iterable[tuple[str, Tensor]]:
    for file in files:
        with safe_open(file, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - no mapping
                yield name, handle.get_tensor(name)

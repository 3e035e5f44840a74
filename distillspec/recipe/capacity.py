"""Whether this machine can do what a recipe asks for: by arithmetic, before anything is built.

Not part of the schema: a recipe may be written on another machine. Imports no torch.
"""

from __future__ import annotations

import os

from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import HardwareConfig
from distillspec.recipe.start import LlamaShape

WEIGHT_BYTES = 4  # float32
_TRAINED_BYTES = 12  # weight, gradient and at least one moment
_MOST_THREADS_A_CORE = 4
_MOST_VISITS = 1000  # of one text in a step
# Device files of NVIDIA, AMD and WSL, which are seen without torch.
_ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def check_threads(threads: int | None, where: str) -> None:
    """DistillSpecError for so many threads that this machine would do nothing but switch."""
    cores = os.cpu_count() or 1
    if threads is not None and threads > _MOST_THREADS_A_CORE * cores:
        raise DistillSpecError(
            f"{threads:,} threads are too many for the {cores} cores of this machine",
            where=where,
            fix=f"set it to at most {cores}, or leave it out",
        )


def llama_parameters(shape: LlamaShape, vocab_size: int) -> int:
    """Parameters of a Llama whose input and output embeddings are tied."""
    hidden = shape.hidden_size
    key_value = hidden // shape.heads * (shape.key_value_heads or shape.heads)
    attention = 2 * hidden * hidden + 2 * hidden * key_value
    layer = attention + 3 * hidden * shape.intermediate_size + 2 * hidden
    return vocab_size * hidden + shape.layers * layer + hidden


def trained_bytes(hardware: HardwareConfig) -> int:
    """Bytes of the host's memory for each trained parameter, at least."""
    on_host = hardware.device == "cpu" or (
        hardware.device == "auto" and not any(map(os.path.exists, _ACCELERATORS))
    )
    return _TRAINED_BYTES if on_host else WEIGHT_BYTES


def check_memory(parameters: int, bytes_each: int, where: str) -> None:
    """DistillSpecError for a model that this machine's memory cannot hold."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = parameters * bytes_each
    if needed > there:
        raise DistillSpecError(
            f"a model of {parameters:,} parameters needs {needed / 2**30:,.0f} GiB of memory, and "
            f"this machine has {there / 2**30:,.0f} GiB",
            where=where,
            fix="lower hidden_size, intermediate_size, layers or the vocabulary",
        )


def check_visits(rows: int, texts: int, where: str) -> None:
    """DistillSpecError for more rows at one time than the texts can sensibly be shown in.

    Args:
        rows: Prepared at one time: those of a step, or of the steps sorted together.
        texts: That there are to train on.
        where: The recipe's keys.
    """
    if rows > _MOST_VISITS * texts:
        raise DistillSpecError(
            f"{rows:,} rows at one time would show each of the {texts:,} texts to train on "
            f"{rows // texts:,} times",
            where=where,
            fix=f"lower it: {texts:,} rows show each text once",
        )

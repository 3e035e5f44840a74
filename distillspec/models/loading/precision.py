"""The floating-point type that this machine multiplies fastest, by measurement."""

from __future__ import annotations

import os
import platform
import time
from functools import cache
from pathlib import Path

import torch
from torch import nn

# A text has a new length at each token, and oneDNN keeps a product of bfloat16, with its buffers,
# for each shape. Its default of 1024 took a gigabyte; the graphs of a suite have fewer than 100.
CACHED_PRODUCTS = 128
_SIDE = 512
_TRIES = 5
_MARGIN = 1.5


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 if the machine multiplies it at least 1.5 times as fast as float32, else float32."""
    if torch.device(device).type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return torch.bfloat16 if _bfloat16_gain() >= _MARGIN else torch.float32


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights of `model` to `dtype` in place; buffers keep their type.

    `model.to(dtype)` would also round the rotary frequencies, which no loader does. Positions
    beyond a few hundred tokens would then have noticeably wrong angles.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def describe(device: torch.device | str) -> str:
    """One line on the machine and the chosen type, for logs and run.json."""
    name = str(fast_dtype(device)).removeprefix("torch.")
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}: {name}"
    gain = f"bfloat16 products are {_bfloat16_gain():.2g} x as fast as float32"
    return f"{_processor()}, {os.cpu_count()} cores: computes in {name}, since {gain}"


@cache
def _bfloat16_gain() -> float:
    """Time of a 512 x 512 product in float32 over that in bfloat16, best of five, on the CPU."""
    best: dict[torch.dtype, float] = {}
    for _ in range(_TRIES):
        # In turn, so that a slow moment of the machine meets both types.
        for dtype in (torch.float32, torch.bfloat16):
            matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
            start = time.perf_counter()
            torch.mm(matrix, matrix)
            seconds = time.perf_counter() - start
            best[dtype] = min(seconds, best.get(dtype, seconds))
    return best[torch.float32] / best[torch.bfloat16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

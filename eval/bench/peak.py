"""Peak memory of a block of code: of a GPU's allocator, or of the whole process on Linux."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch

MIB = 2**20


class PeakMemory:
    """Bytes used above the start of the block: allocator's on a GPU, resident on Linux."""

    def __init__(self, device: str) -> None:
        self.on_gpu = torch.device(device).type == "cuda"
        self.mib = float("nan")

    def __enter__(self) -> Self:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")
        self.before = torch.cuda.memory_allocated() if self.on_gpu else _resident("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        peak = torch.cuda.max_memory_allocated() if self.on_gpu else _resident("VmHWM")
        self.mib = (peak - self.before) / MIB


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"no {field} in /proc/self/status: memory is measured on Linux or a GPU")

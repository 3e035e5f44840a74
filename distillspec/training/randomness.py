"""Random streams that depend on where a run stands and on nothing else: resuming repeats them."""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, purpose: str, *position: int) -> int:
    """A seed in [0, 2^63) of its own for each (seed, purpose, position), on every machine."""
    text = "/".join([str(seed), purpose, *map(str, position)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, purpose: str, *position: int, device: torch.device) -> torch.Generator:
    """A fresh generator at that seed."""
    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, *position))

"""The processes of a run, as torchrun set them up."""

from __future__ import annotations

import os
from typing import NamedTuple


class World(NamedTuple):
    """The processes of this run, as torchrun set them up; one process without it."""

    size: int
    per_node: int
    rank: int

    @classmethod
    def from_environment(cls) -> World:
        size = int(os.environ.get("WORLD_SIZE", "1"))
        per_node = int(os.environ.get("LOCAL_WORLD_SIZE", str(size)))
        return cls(size, per_node, int(os.environ.get("RANK", "0")))

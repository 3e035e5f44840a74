from __future__ import annotations

import torch

from distillspec.processes import join, leave, told_by_rank_0
from distillspec.training.strategy import World


def test_one_process_is_a_world_of_its_own_and_waits_for_nobody() -> None:
    world = join()
    assert (world.size, world.rank) == (1, 0)
    assert not torch.distributed.is_initialized()
    assert told_by_rank_0("what it says", World(1, 1, 0)) == "what it says"
    leave(world)

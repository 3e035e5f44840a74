"""The processes of a run under torchrun: how they join, agree, and leave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed

from distillspec.runtime.lock import run_lock
from distillspec.runtime.terminal import Terminal
from distillspec.runtime.world import World

Value = TypeVar("Value")


def join() -> World:
    """Under torchrun, the process group that training will use; Lightning takes it over."""
    world = World.from_environment()
    if torch.cuda.is_available():  # before anything asks for "the" GPU
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if world.size > 1 and not torch.distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend)
    return world


def leave(world: World) -> None:
    """All processes together; what follows is rank 0's alone."""
    if world.size > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def from_rank_0(value: Value | None, world: World) -> Value:
    """What rank 0 has, everywhere; the others give None."""
    box = [value]
    if world.size > 1:
        torch.distributed.broadcast_object_list(box)
    assert box[0] is not None
    return box[0]


@contextmanager
def writing_store(folder: Path, world: World, console: Terminal) -> Iterator[None]:
    """All processes of this run together, while no other run writes into the store at `folder`.

    A run of one process waits for the other run. One of several processes ends with an error,
    since its other processes would run into their time-out.

    Raises:
        DistillSpecError: This run has several processes, and another run is writing.
    """

    def report_wait(holder: str) -> None:
        console.print(f"waiting for process {holder}, which writes into {folder}", soft_wrap=True)

    if world.size == 1:
        with run_lock(folder, on_wait=report_wait):
            yield
        return
    if world.rank:
        # Rank 0 holds the lock between these two barriers.
        torch.distributed.barrier()
        yield
        torch.distributed.barrier()
        return
    with run_lock(folder):
        torch.distributed.barrier()
        yield
        torch.distributed.barrier()

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from distillspec.runtime.processes import from_rank_0, join, leave, writing_store
from distillspec.runtime.terminal import Terminal
from distillspec.runtime.world import World


def test_one_process_is_a_world_of_its_own_and_waits_for_nobody() -> None:
    world = join()
    assert (world.size, world.rank) == (1, 0)
    assert not torch.distributed.is_initialized()
    assert from_rank_0("what it says", World(1, 1, 0)) == "what it says"
    leave(world)


_HOLDER = """
import sys
from pathlib import Path
from distillspec.runtime.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_run_waits_for_another_that_writes_the_same_store(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], text=True, **pipes)
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"

        class Told(Terminal):
            """Lets the other process end as soon as this one says that it waits."""

            def print(self, *lines: object, **_: object) -> None:  # type: ignore[override]
                said.extend(map(str, lines))
                print(file=holder.stdin, flush=True)

        said: list[str] = []
        with writing_store(tmp_path, World(1, 1, 0), Told()):
            assert holder.wait(60) == 0
        assert f"waiting for process {holder.pid}" in said[0]
    finally:
        holder.kill()
        holder.communicate()

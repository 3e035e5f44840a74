"""Runs every command of README.md and docs/ for real, in the order of the pages.

    python eval/campaigns/docs.py --scratch /tmp/docs           # all of them, minutes on two cores
    python eval/campaigns/docs.py --pages tutorials/first-run.md --scratch /tmp/docs

Commands marked as needing a GPU, the Hub or an engine are left out; `docs_blocks.py` lists the
marks. The scratch folder gets the recipes, suites and files that the commands name. RUN-FOLDER
stands for the newest run, so the first tutorial is always run first. A fault is: an exit code that
is not 0, a traceback, or a command that takes longer than --patience. All run on one core with one
thread, since threads that wait for each other take long where other programs run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from eval.campaigns.docs_blocks import Block, commands, every_block, write_files  # noqa: E402

FIRST = "docs/tutorials/first-run.md"
RUNS = Path("checkpoints/runs/nano-python")
SHOWN = 12  # last lines of a command that failed


class Job(NamedTuple):
    """Something to run. arguments: of Python."""

    place: str
    shown: str
    arguments: tuple[str, ...]


def jobs(blocks: list[Block]) -> Iterator[Job]:
    for block in blocks:
        run = block.marks.get("run", "")
        if "needs" in block.marks or run.startswith("skip"):
            continue
        if block.language == "python" and run == "python":
            yield Job(block.place, "the Python block", ("-c", block.text))
        for command in commands(block):
            words = command.words
            if "--dry-run" not in words:
                words += tuple(shlex.split(run))
            yield Job(block.place, shlex.join(words), ("-m", "distillspec", *words))


def prepare(scratch: Path) -> None:
    """The part of a checkout that commands name: runs are written here."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    shutil.copytree(ROOT / "recipes", scratch / "recipes")
    for name in ("suites", "metrics"):
        shutil.copytree(ROOT / "eval" / name, scratch / "eval" / name)
    (scratch / "checkpoints").mkdir()
    (scratch / "checkpoints" / "nano-python").symlink_to(ROOT / "checkpoints" / "nano-python")
    write_files(scratch)


def newest_run(scratch: Path) -> str:
    found = sorted((scratch / RUNS).glob("*"), key=lambda one: one.stat().st_mtime)
    return str(found[-1].relative_to(scratch)) if found else "RUN-FOLDER"


def fault_of(job: Job, scratch: Path, patience: float) -> str | None:
    """What went wrong; None: nothing."""
    arguments = [newest_run(scratch) if one == "RUN-FOLDER" else one for one in job.arguments]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {patience:.0f} s"
    last = "\n".join(done.stdout.splitlines()[-SHOWN:])
    if done.returncode:
        return f"exit code {done.returncode}\n{last}"
    return f"a traceback\n{last}" if "Traceback (most recent call last)" in done.stdout else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scratch", type=Path, required=True, help="a folder that is replaced")
    parser.add_argument("--pages", nargs="*", help="of docs/; default: all, and README.md")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds for one command")
    given = parser.parse_args()
    scratch = given.scratch.resolve()
    prepare(scratch)
    if sys.platform == "linux":  # the commands inherit it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    blocks = every_block()
    if given.pages:
        wanted = {FIRST, *(f"docs/{name}" for name in given.pages)}
        blocks = [block for block in blocks if block.page in wanted]
    tried = faults = 0
    for job in jobs(blocks):
        began = time.monotonic()
        fault = fault_of(job, scratch, given.patience)
        tried, faults = tried + 1, faults + (fault is not None)
        seconds = time.monotonic() - began
        print(f"{'FAULT' if fault else 'ok':<6}{seconds:6.1f} s  {job.place}  {job.shown[:150]}")
        if fault:
            print(fault, flush=True)
        sys.stdout.flush()
    print(f"{tried} tried, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

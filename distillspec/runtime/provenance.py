"""How a run came about: code, versions, machine, command, cost -> run.json. Imports no torch."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from distillspec.runtime import atomic
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.text.secret import without_secrets

PACKAGES = ("torch", "transformers", "datasets", "peft", "deepspeed", "lightning", "evaluate")

_FAST_MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "i8mm")


# --- the record ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Git:
    """The state of the repository.

    Attributes:
        commit: Full SHA; None outside a repository.
        dirty: Whether any file differs from that commit.
    """

    commit: str | None
    dirty: bool | None


@dataclass(frozen=True)
class Machine:
    """The machine of a run.

    Attributes:
        system: Name of the operating system.
        cpu: Name of the processor.
        cpu_flags: Its instruction sets.
        cores: Cores of the processor.
        memory_bytes: Memory that this process may use; a container's limit counts.
        gpus: Their names; empty until torch is imported.
    """

    system: str
    cpu: str
    cpu_flags: tuple[str, ...]
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class RunCost:
    """What a run took.

    Attributes:
        seconds: Wall-clock time.
        tokens: Tokens that were trained on or decoded, as the caller counts them.
        peak_memory_bytes: Largest resident size of this process (rank 0).
        peak_gpu_bytes: Largest amount allocated on its GPUs together; 0 without a GPU.
    """

    seconds: float
    tokens: int
    peak_memory_bytes: int
    peak_gpu_bytes: int


@dataclass(frozen=True)
class Provenance:
    """One start of a run. cost is None until it was first recorded; finished: it ended well."""

    command: tuple[str, ...]
    started: str
    git: Git
    python: str
    versions: dict[str, str | None]
    machine: Machine
    processes: int
    cost: RunCost | None = None
    finished: bool = False


# --- gathering -----------------------------------------------------------------------------------


def gather(command: Sequence[str] | None = None) -> Provenance:
    """What is known when a run starts. command: default, this process's own, without secrets."""
    given = sys.orig_argv if command is None else command
    return Provenance(
        command=without_secrets(given),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        git=git_state(Path(__file__).parents[1]),
        python=platform.python_version(),
        versions={name: _version(name) for name in ("distillspec", *PACKAGES)},
        machine=machine(),
        processes=int(os.environ.get("WORLD_SIZE", "1")),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_state(folder: Path) -> Git:
    """The state of the repository that tracks `folder`; Git(None, None) where there is none.

    A copy installed inside somebody else's repository (a .venv) is not tracked by it, and must
    not borrow its commit. Untracked files count as dirty: they may be part of the run.
    """
    tracked = _git(folder, "ls-files", ".")
    commit = _git(folder, "rev-parse", "HEAD")
    if not tracked or not commit:
        return Git(None, None)
    status = _git(folder, "status", "--porcelain")
    return Git(commit, None if status is None else bool(status))


def _git(folder: Path, *arguments: str) -> str | None:
    """git's answer, None where git, the repository or the answer is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            # Otherwise `git status` would lock the repository to refresh its index.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def machine() -> Machine:
    name, flags = _cpu()
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=name,
        cpu_flags=tuple(flag for flag in _FAST_MATRIX_FLAGS if flag in flags),
        cores=_cores(),
        memory_bytes=memory_bytes(),
        gpus=_gpus(),
    )


def _cpu() -> tuple[str, frozenset[str]]:
    """The processor's name and its instruction set flags, as far as the system tells."""
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return name, flags
    # The first processor stands for all.
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = frozenset(value.split())
    return name, flags


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory_bytes() -> int:
    """What this process may use; a container's limit counts."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        # cgroup v2; the content is `max` if there is no limit.
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical


def _gpus() -> tuple[str, ...]:
    # From sys.modules, because this file must not import torch.
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _peak_gpu_bytes() -> int:
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))


def _peak_memory_bytes() -> int:
    # ru_maxrss is in bytes on macOS and in KiB on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# --- run.json ------------------------------------------------------------------------------------


class RunLog:
    """run.json: a record for every start of a run, so that a resumed run shows all of its starts.

    Create it once per process of rank 0. Every write replaces the file atomically.
    """

    def __init__(self, path: Path, provenance: Provenance) -> None:
        """Append `provenance` to the starts in `path`, and start the clock."""
        self._path = path
        self._earlier = read(path) if path.exists() else ()
        self._now = provenance
        self._clock = time.monotonic()
        self._write()

    def record(self, *, tokens: int, finished: bool = False) -> Provenance:
        """Write what this start has cost so far (at checkpoints, and at the end)."""
        cost = RunCost(
            seconds=round(time.monotonic() - self._clock, 3),
            tokens=tokens,
            peak_memory_bytes=_peak_memory_bytes(),
            peak_gpu_bytes=_peak_gpu_bytes(),
        )
        # torch may have been imported since the start: only now are the GPUs known.
        machine_now = replace(self._now.machine, gpus=_gpus())
        self._now = replace(self._now, cost=cost, finished=finished, machine=machine_now)
        self._write()
        return self._now

    def _write(self) -> None:
        starts = [*self._earlier, self._now]
        total = total_cost(starts)
        atomic.write_json(
            self._path,
            {"starts": [asdict(start) for start in starts], "total": total and asdict(total)},
        )


def total_cost(starts: Sequence[Provenance]) -> RunCost | None:
    """Seconds and tokens added up, the largest peaks; None where nothing was recorded."""
    costs = [start.cost for start in starts if start.cost is not None]
    if not costs:
        return None
    return RunCost(
        seconds=round(sum(cost.seconds for cost in costs), 3),
        tokens=sum(cost.tokens for cost in costs),
        peak_memory_bytes=max(cost.peak_memory_bytes for cost in costs),
        peak_gpu_bytes=max(cost.peak_gpu_bytes for cost in costs),
    )


class _Starts(NamedTuple):
    """What run.json holds. total: of all starts; it is computed, not read."""

    starts: tuple[Provenance, ...]
    total: RunCost | None = None


def read(path: Path) -> tuple[Provenance, ...]:
    """The starts in a run.json, oldest first. A broken file is a DistillSpecError."""
    fix = "give the folder of a run made by this project, or move this file away"
    return read_json(BoundedText(path, "run.json, the record of a run,", fix), _Starts).starts

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.distributed


def torchrun(processes: int, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "distillspec.runtime.torchrun",
        "--standalone",
        "--nproc-per-node",
    ]
    return subprocess.run(
        [*command, str(processes), *argv],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as launch.sh sets it; else torchrun warns
    )  # fmt: skip


def script(folder: Path, body: str) -> str:
    path = folder / "worker.py"
    path.write_text(f"import os, signal, sys, time\n{body}", encoding="utf-8")
    return str(path)


def test_a_users_error_is_told_once_by_two_processes_and_without_a_traceback() -> None:
    done = torchrun(2, "-m", "distillspec", "run", "none.yaml")
    assert done.returncode == 1
    assert done.stderr.count("no such recipe") == 1
    assert "Traceback" not in done.stderr


def test_the_exit_code_of_the_worker_that_failed_comes_out(tmp_path: Path) -> None:
    done = torchrun(
        2, script(tmp_path, "sys.exit(2) if os.environ['RANK'] == '1' else time.sleep(60)")
    )
    assert done.returncode == 2
    assert done.stderr == ""


def test_a_killed_worker_is_explained(tmp_path: Path) -> None:
    done = torchrun(1, script(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)"))
    assert done.returncode == 128 + 9
    assert done.stderr.startswith("a worker process was killed by SIGKILL\n  where: ")
    assert "Traceback" not in done.stderr


def test_an_interrupt_of_the_launcher_reaches_the_workers(tmp_path: Path) -> None:
    body = (
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('stopping', flush=True)\n"
    )
    command = [
        sys.executable,
        "-m",
        "distillspec.runtime.torchrun",
        "--standalone",
        "--nproc-per-node=1",
    ]
    with subprocess.Popen(
        [*command, script(tmp_path, body)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(2)
        assert process.stdout.readline() == "stopping\n"
        assert process.wait(timeout=60) == 130


def test_plain_torchrun_prints_a_users_error_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "distillspec", "run", "none.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("no such recipe") == 1

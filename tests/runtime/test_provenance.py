from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.runtime import provenance
from distillspec.runtime.provenance import Git, RunCost, RunLog
from distillspec.text.secret import without_secrets


def _git(folder: Path, *arguments: str) -> str:
    identity = {
        f"GIT_{who}_{what}": "t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True, capture_output=True, text=True, env={**os.environ, **identity},
    ).stdout.strip()  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    _git(folder, "init", "-q")
    (folder / "code.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text(".venv/\n")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "first")
    return folder


# --- what is gathered ----------------------------------------------------------------------------


def test_importing_and_gathering_imports_no_torch() -> None:
    code = (
        "import sys; from distillspec.runtime import provenance; p = provenance.gather();"
        "assert p.machine.gpus == (); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_seven_packages_and_python_are_named_with_their_versions() -> None:
    gathered = provenance.gather()
    assert set(provenance.PACKAGES) == {
        "torch", "transformers", "datasets", "peft", "deepspeed", "lightning", "evaluate",
    }  # fmt: skip
    assert all(gathered.versions[name] for name in provenance.PACKAGES)
    assert gathered.python == platform.python_version()


def test_an_absent_package_has_no_version() -> None:
    assert provenance._version("a-package-that-nobody-installed") is None


def test_the_machine_is_described() -> None:
    machine = provenance.machine()
    assert machine.cpu and machine.system
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.memory_bytes > 2**28


def test_the_start_time_carries_its_time_zone() -> None:
    assert provenance.gather().started.endswith("+00:00")


def test_the_number_of_processes_is_the_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert provenance.gather().processes == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert provenance.gather().processes == 4


# --- git -----------------------------------------------------------------------------------------


def test_a_clean_repository_gives_its_commit(repository: Path) -> None:
    assert provenance.git_state(repository) == Git(_git(repository, "rev-parse", "HEAD"), False)


def test_a_changed_file_makes_it_dirty(repository: Path) -> None:
    (repository / "code.py").write_text("x = 2\n")
    assert provenance.git_state(repository).dirty is True


def test_an_untracked_file_makes_it_dirty(repository: Path) -> None:
    (repository / "more.py").write_text("y = 1\n")
    assert provenance.git_state(repository).dirty is True


def test_a_folder_outside_any_repository_has_no_commit(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) == Git(None, None)


def test_a_repository_without_commits_has_no_commit(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    assert provenance.git_state(tmp_path) == Git(None, None)


def test_an_installed_copy_does_not_borrow_the_commit_around_it(repository: Path) -> None:
    installed = repository / ".venv" / "distillspec"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("x = 1\n")
    assert provenance.git_state(installed) == Git(None, None)


def test_a_machine_without_git_has_no_commit(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state(repository) == Git(None, None)


def test_the_default_command_is_this_process() -> None:
    assert provenance.gather().command == without_secrets(sys.orig_argv)


# --- run.json ------------------------------------------------------------------------------------


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run" / "run.json"
    gathered = provenance.gather(["train"])
    RunLog(path, gathered)
    assert provenance.read(path) == (gathered,)


def test_the_cost_is_added_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    log = RunLog(path, provenance.gather(["train"]))
    assert json.loads(path.read_text())["total"] is None
    log.record(tokens=10)
    log.record(tokens=30, finished=True)
    (start,) = provenance.read(path)
    assert start.finished and start.cost is not None
    assert start.cost.tokens == 30
    assert 0 <= start.cost.seconds < 60
    assert start.cost.peak_memory_bytes > 2**20


def test_a_resumed_run_keeps_the_record_of_its_first_start(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    RunLog(path, provenance.gather(["first"])).record(tokens=10)
    RunLog(path, provenance.gather(["second"])).record(tokens=5, finished=True)
    first, second = provenance.read(path)
    assert (first.command, first.finished) == (("first",), False)
    assert (second.command, second.finished) == (("second",), True)
    assert json.loads(path.read_text())["total"]["tokens"] == 15


def test_costs_add_up_and_peaks_do_not() -> None:
    start = provenance.gather(["x"])
    starts = [
        replace(start, cost=RunCost(seconds=1.5, tokens=10, peak_memory_bytes=7, peak_gpu_bytes=1)),
        start,
        replace(start, cost=RunCost(seconds=2.0, tokens=5, peak_memory_bytes=4, peak_gpu_bytes=3)),
    ]
    assert provenance.total_cost(starts) == RunCost(3.5, 15, 7, 3)
    assert provenance.total_cost([start]) is None


def test_nothing_but_run_json_is_left_in_the_folder(tmp_path: Path) -> None:
    RunLog(tmp_path / "run.json", provenance.gather(["x"])).record(tokens=1, finished=True)
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"starts": [{}]}', '{"starts": 3}', "\udcff"])
def test_a_broken_run_json_is_a_users_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DistillSpecError, match="run.json"):
        provenance.read(path)

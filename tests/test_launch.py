"""launch.sh, with an interpreter that writes down what it is asked for instead of doing it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Stands for python: notes its arguments; `-m venv` puts a copy of it into the new environment.
PYTHON = """\
#!/usr/bin/env bash
echo "$*" >>"$NOTES"
[[ "${BREAK:-}" && "$*" == *"$BREAK"* ]] && exit 1
if [[ "$1 $2 $3" == "-m venv --clear" ]]; then
    rm -rf "$4"
    mkdir -p "$4/bin"
    cp "$0" "$4/bin/python"
fi
[[ "${SHOW:-}" ]] && env | grep -E "^($SHOW)="
exit 0
"""


TOOLS = ("bash", "cat", "cp", "dirname", "env", "flock", "getconf", "grep", "mkdir", "mv", "nproc")
TOOLS += ("rm", "sha256sum")


class Launcher:
    """A copy of launch.sh in a folder of its own, with a PATH on which there is no real Python."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.root.mkdir()
        shutil.copy(ROOT / "launch.sh", self.root)
        (self.root / "requirements.lock").write_text("torch==2.13.0\n", encoding="utf-8")
        (self.root / "pyproject.toml").write_text("", encoding="utf-8")
        (self.root / "r.yaml").write_text("", encoding="utf-8")
        self.notes = folder / "notes"
        self.python = folder / "python"
        self.python.write_text(PYTHON, encoding="utf-8")
        self.python.chmod(0o755)
        self.tools = folder / "tools"
        self.tools.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None, tool
            (self.tools / tool).symlink_to(found)

    def __call__(self, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
        self.notes.write_text("", encoding="utf-8")
        environment = {
            "PATH": str(self.tools),
            "PYTHON": str(self.python),
            "NOTES": str(self.notes),
            "CUDA_VISIBLE_DEVICES": "",
            **variables,
        }
        return subprocess.run(
            ["bash", "./launch.sh", *argv],
            cwd=self.root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def asked(self, part: str) -> list[str]:
        """The noted calls of python that contain `part`."""
        return [line for line in self.notes.read_text().splitlines() if part in line]

    def last(self) -> str:
        return self.notes.read_text().splitlines()[-1]


@pytest.fixture
def launch(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path)


def test_the_first_start_installs_and_the_second_does_not(launch: Launcher) -> None:
    assert launch("schema").returncode == 0
    assert len(launch.asked("-m venv --clear")) == 1
    assert len(launch.asked("pip install --requirement")) == 1
    assert len(launch.asked("--no-deps --no-build-isolation --editable")) == 1
    assert launch("schema").returncode == 0
    assert launch.notes.read_text() == "-m distillspec schema\n"


def test_a_changed_lock_is_installed_into_the_same_environment(launch: Launcher) -> None:
    launch("schema")
    (launch.root / "requirements.lock").write_text("torch==2.13.1\n", encoding="utf-8")
    launch("schema")
    assert launch.asked("-m venv") == []
    assert len(launch.asked("pip install --quiet --requirement")) == 1


def test_changed_metadata_only_registers_the_package_again(launch: Launcher) -> None:
    launch("schema")
    (launch.root / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    assert launch("schema", BREAK="--editable").returncode == 1
    launch("schema")
    assert launch.asked("--requirement") == []
    assert len(launch.asked("--editable")) == 1


def test_an_interrupted_installation_is_made_anew(launch: Launcher) -> None:
    failed = launch("schema", BREAK="pip install --requirement")
    assert failed.returncode == 1
    assert "installing the locked packages failed\n  where: " in failed.stderr
    assert launch.asked("distillspec schema") == []
    assert launch("schema").returncode == 0
    assert len(launch.asked("-m venv --clear")) == 1
    launch("schema")
    assert launch.asked("venv") == []


def test_a_failed_update_keeps_the_environment(launch: Launcher) -> None:
    launch("schema")
    (launch.root / "requirements.lock").write_text("torch==2.13.1\n", encoding="utf-8")
    assert launch("schema", BREAK="pip install --quiet --requirement").returncode == 1
    assert launch("schema").returncode == 0
    assert launch.asked("-m venv") == []


def test_without_a_fit_python_there_is_a_clear_error(launch: Launcher) -> None:
    done = launch("schema", BREAK="import ensurepip")
    assert done.returncode == 1
    assert "no Python 3.11 or newer" in done.stderr
    assert "  where: PATH (tried " in done.stderr
    assert "  fix:   install it" in done.stderr
    assert launch.asked("-m venv") == []


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (("r.yaml", "seed=1"), "-m distillspec run r.yaml seed=1"),
        (("./r.yaml",), "-m distillspec run ./r.yaml"),
        (("absent.yaml",), "-m distillspec run absent.yaml"),
        (("checkpoints/runs/r/1",), "-m distillspec run checkpoints/runs/r/1"),
        (("run", "r.yaml"), "-m distillspec run r.yaml"),
        (("train", "r.yaml"), "-m distillspec train r.yaml"),
    ],
)
def test_a_recipe_or_a_run_folder_goes_to_torchrun(
    launch: Launcher, argv: tuple[str, ...], asked: str
) -> None:
    launch(*argv)
    assert (
        launch.last() == f"-m distillspec.runtime.torchrun --standalone --nproc-per-node 1 {asked}"
    )


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (("r.yaml", "--dry-run"), "-m distillspec run r.yaml --dry-run"),
        (("r.yaml", "a=1", "--dump-config"), "-m distillspec run r.yaml a=1 --dump-config"),
        (("pretrain", "r.yaml"), "-m distillspec pretrain r.yaml"),
        (("evalate",), "-m distillspec evalate"),
        (("--help",), "-m distillspec --help"),
        ((), "-m distillspec"),
    ],
)
def test_all_else_needs_no_torchrun(launch: Launcher, argv: tuple[str, ...], asked: str) -> None:
    launch(*argv)
    assert launch.last() == asked


def test_the_quick_tests_run_in_several_processes_with_one_thread_each(launch: Launcher) -> None:
    launch("schema")
    shown = launch("test", "-k", "a b", SHOW="OMP_NUM_THREADS").stdout
    assert shown == "OMP_NUM_THREADS=1\n"
    assert re.fullmatch("-m pytest -n [1-8] --dist worksteal -m not slow -k a b", launch.last())


def test_the_number_of_processes_follows_gpus_and_nproc(launch: Launcher) -> None:
    launch("r.yaml", CUDA_VISIBLE_DEVICES="0,1,2")
    assert "--nproc-per-node 3 " in launch.last()
    launch("r.yaml", CUDA_VISIBLE_DEVICES="-1")
    assert "--nproc-per-node 1 " in launch.last()
    launch("r.yaml", NPROC="2", CUDA_VISIBLE_DEVICES="0,1,2")
    assert "--nproc-per-node 2 " in launch.last()
    assert "NPROC must be" in launch("r.yaml", NPROC="two").stderr


def test_several_machines_meet_at_the_given_endpoint(launch: Launcher) -> None:
    several = {"NNODES": "2", "RDZV_ENDPOINT": "host:29500"}
    launch("r.yaml", **several)
    assert "--nnodes 2 --rdzv-endpoint host:29500 --rdzv-backend c10d" in launch.last()
    launch("r.yaml", **several, NODE_RANK="1")
    assert "--rdzv-backend static --node-rank 1 --nproc-per-node 1" in launch.last()
    alone = launch("r.yaml", NNODES="2")
    assert alone.returncode == 1
    assert "RDZV_ENDPOINT" in alone.stderr


def test_memory_settings_are_for_machines_without_gpu_and_yield_to_the_users(
    launch: Launcher,
) -> None:
    shown = "MALLOC_TOP_PAD_|OMP_NUM_THREADS"
    launch("schema")
    assert launch("schema", SHOW=shown).stdout == "MALLOC_TOP_PAD_=268435456\n"
    assert launch("schema", SHOW=shown, MALLOC_TOP_PAD_="1").stdout == "MALLOC_TOP_PAD_=1\n"
    assert launch("schema", SHOW=shown, CUDA_VISIBLE_DEVICES="0").stdout == ""


def test_processes_share_the_cores(launch: Launcher) -> None:
    launch("schema")
    one_each = {"NPROC": "1000", "SHOW": "OMP_NUM_THREADS"}
    assert launch("schema", **one_each).stdout == "OMP_NUM_THREADS=1\n"
    assert launch("schema", **one_each, OMP_NUM_THREADS="3").stdout == "OMP_NUM_THREADS=3\n"


def test_it_can_be_started_from_another_folder(launch: Launcher, tmp_path: Path) -> None:
    launch("schema")
    environment = {"PATH": str(launch.tools), "NOTES": str(launch.notes)}
    subprocess.run(
        ["bash", "project/launch.sh", "schema"], cwd=tmp_path, env=environment, check=True
    )
    assert launch.last() == "-m distillspec schema"

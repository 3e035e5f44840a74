"""The package as `pip install .` gives it: a wheel in a fresh environment, outside a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
# What a wheel is made of; built in a copy, because setuptools leaves folders where it builds.
SOURCES = (
    "distillspec",
    "recipes",
    "eval/suites",
    "eval/metrics",
    "checkpoints/nano-python",
    "checkpoints/smollm2-135m",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
)
SHIPPED = {"recipes": "recipes", "suites": "eval/suites", "metrics": "eval/metrics"}


class Installed(NamedTuple):
    wheel: Path
    environment: Path

    def run(self, *argv: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run the environment's python in `folder`, without this checkout on its path."""
        python = self.environment / "bin" / "python"
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(python), *argv],
            cwd=folder, env=kept, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, and a fresh environment with it that borrows this one's libraries."""
    folder = tmp_path_factory.mktemp("wheel")
    source, environment = folder / "source", folder / "environment"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        place = source / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=ignored)
        else:
            shutil.copy(ROOT / name, place)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    build = ["wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    _succeed([*pip, *build])
    (wheel,) = folder.glob("*.whl")
    _succeed([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    (own,) = environment.glob("lib/python*/site-packages")
    # A path in a .pth file adds libraries, not the .pth files there: no editable distillspec.
    (own / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    python = str(environment / "bin" / "python")
    _succeed([*pip, "--python", python, "install", *offline, str(wheel)])
    return Installed(wheel, environment)


def _succeed(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr


def test_the_smallest_recipe_is_planned_from_any_folder(
    installed: Installed, tmp_path: Path
) -> None:
    done = installed.run("-m", "distillspec", "run", "nano-python", "--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(installed.environment) in done.stdout  # the pair is the package's
    assert "quick: standard" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_is_imported_is_the_wheel(installed: Installed, tmp_path: Path) -> None:
    code = "import distillspec; print(distillspec.__file__, distillspec.__version__)"
    file, version = installed.run("-c", code, folder=tmp_path).stdout.split()
    assert Path(file).is_relative_to(installed.environment)
    assert f"-{version}-" in installed.wheel.name


def test_the_command_is_installed(installed: Installed, tmp_path: Path) -> None:
    command = str(installed.environment / "bin" / "distillspec")
    done = installed.run(command, "compare", "objectives", "--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "runs," in done.stdout


def test_the_wheel_holds_all_that_is_shipped_and_no_more(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    held = {name for name in names if name.startswith("distillspec/builtin/")}
    shipped = {
        f"distillspec/builtin/{kind}/{path.relative_to(ROOT / folder)}"
        for kind, folder in SHIPPED.items()
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".yaml", ".py")
    }
    models = ROOT / "checkpoints"
    shipped |= {
        f"distillspec/builtin/models/{path.relative_to(models)}"
        for path in (models / "nano-python").rglob("*.*")
        if path.suffix in (".json", ".safetensors")
    }
    draft = models / "smollm2-135m" / "draft"
    shipped |= {
        f"distillspec/builtin/models/{path.relative_to(models)}" for path in draft.iterdir()
    }
    assert held == shipped
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "distillspec").rglob("*")
        if path.suffix in (".py", ".j2", ".css") or path.name == "py.typed"
    }
    assert {name for name in names if name.startswith("distillspec/")} - held == modules

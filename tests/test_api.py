"""The public API: the names that `distillspec` exports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import distillspec
from distillspec.workflows import library

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there_and_listed() -> None:
    for name in distillspec.__all__:
        assert getattr(distillspec, name) is not None
    assert set(distillspec.__all__) <= set(dir(distillspec))
    assert distillspec.train is library.train
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        distillspec.trian  # noqa: B018


def test_the_package_and_its_recipes_load_without_torch() -> None:
    code = (
        "import sys, distillspec\n"
        "distillspec.load_recipe('nano-python')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=100)


def test_the_version_is_the_same_everywhere() -> None:
    version = distillspec.__version__
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text()

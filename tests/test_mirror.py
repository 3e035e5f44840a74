"""Tests mirror the source one to one: each module has its test file, each test file its module."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]

# Test files that are about the whole house, or about a file outside the package.
OF_THE_WHOLE = {
    "test_api.py",
    "test_examples.py",
    "test_wheel.py",
    "test_docs.py",
    "test_results_page.py",
    "test_layers.py",
    "test_mirror.py",
    "test_launch.py",
    "test_shipped_recipes.py",
}


def expected_tests() -> set[str]:
    """The test file of each module: distillspec/a/b.py -> a/test_b.py."""
    package = ROOT / "distillspec"
    return {
        path.relative_to(package).with_name(f"test_{path.stem.strip('_')}.py").as_posix()
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }


def present_tests() -> set[str]:
    tests = ROOT / "tests"
    inside = {path.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")}
    return {name for name in inside if not name.startswith("eval/")} - OF_THE_WHOLE


def test_every_module_has_its_test_file() -> None:
    assert sorted(expected_tests() - present_tests()) == []


def test_every_test_file_has_its_module() -> None:
    assert sorted(present_tests() - expected_tests()) == []


def test_tests_of_eval_mirror_eval() -> None:
    tests = ROOT / "tests" / "eval"
    missing = [
        path.as_posix()
        for path in tests.rglob("test_*.py")
        if not list((ROOT / "eval").rglob(f"{path.stem.removeprefix('test_')}.py"))
    ]
    assert missing == []

import sys
from pathlib import Path

import pytest

from distillspec.corpus.sources.code_files import check_divided, code_files, is_held_out
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import CppSource, PythonSource


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable package of 40 modules, with a test, a table and a licence header."""
    root = tmp_path / "sample_package"
    (root / "tests").mkdir(parents=True)
    (root / "models").mkdir()
    for i in range(40):
        text = f"# Copyright\n#\n\nimport os\n\n\ndef function_{i}():\n    return os\n"
        (root / "models" / f"module_{i}.py").write_text(text)
    (root / "tests" / "test_it.py").write_text("def test_it():\n    pass\n")
    (root / "table.py").write_text("TABLE = [" + "123456, " * 200 + "]\n")
    (root / "empty.py").write_text("# nothing but a comment\n")
    (root / "latin.py").write_bytes(b"name = '\xe9'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "sample_package"


def source(**values: object) -> PythonSource:
    return PythonSource.model_validate({"kind": "python-source", **values})


def test_code_is_taken_without_tests_tables_and_licence_headers(package: str) -> None:
    files = code_files(source(packages=[package]), 20.0)
    everything = files.training + files.held_out
    assert {f.key for f in everything} == {f"{package}/models/module_{i}.py" for i in range(40)}
    assert all(f.text.startswith("import os") for f in everything)


def test_a_file_is_held_out_by_its_path_alone(package: str) -> None:
    whole = code_files(source(packages=[package]), 20.0)
    part = code_files(source(packages=[package], include=["models/module_1*.py"]), 20.0)
    held_out = {f.key for f in whole.held_out}
    assert {f.key for f in part.held_out} == held_out & {
        f.key for f in part.training + part.held_out
    }
    assert not held_out & {f.key for f in whole.training}


def test_the_held_out_share_is_near_the_percentage_asked_for() -> None:
    held_out = sum(is_held_out(f"some/key_{i}.py", 3.0) for i in range(20_000))
    assert 500 < held_out < 700


def test_the_side_of_a_key_never_changes() -> None:
    """A later version with another hash would train on what an earlier one held out."""
    sides = {
        "python/json/decoder.py": [False, True, True, True],
        "transformers/models/llama/modeling_llama.py": [False, False, True, True],
        "python/email/header.py": [False, False, False, True],
        "python/ast.py": [False, False, False, False],
    }
    for key, expected in sides.items():
        assert [is_held_out(key, percent) for percent in (5.0, 20.0, 50.0, 80.0)] == expected


def test_a_double_star_matches_files_at_the_top_as_well() -> None:
    files = code_files(source(standard_library=True, include=["**/*.py"], exclude=["*/*"]), 50.0)
    keys = {f.key for f in files.training + files.held_out}
    assert "python/argparse.py" in keys
    assert not any(key.count("/") > 1 for key in keys)


def test_the_standard_library_comes_without_its_tests() -> None:
    files = code_files(source(standard_library=True, include=["json/*.py", "test/*.py"]), 40.0)
    assert {f.key for f in files.training + files.held_out} <= {
        f"python/json/{name}.py"
        for name in ("__init__", "decoder", "encoder", "scanner", "tool", "__main__")
    }


def test_a_package_that_is_not_installed_is_named() -> None:
    assert "no_such_package" not in sys.modules
    with pytest.raises(DistillSpecError, match="'no_such_package' is not installed"):
        code_files(source(packages=["no_such_package"]), 3.0)


def test_globs_that_match_nothing_are_an_error(package: str) -> None:
    with pytest.raises(DistillSpecError, match="matches no file"):
        code_files(source(packages=[package], include=["nowhere/*.py"]), 3.0)


def test_a_corpus_too_small_to_divide_is_counted(package: str) -> None:
    """The one file is for training at 3 %; on average 34 files hold out one."""
    with pytest.raises(DistillSpecError) as caught:
        code_files(source(packages=[package], include=["models/module_10.py"]), 3.0)
    assert "1 files, of which 1 are for training and 0 held out" in caught.value.what
    assert caught.value.where == "held_out_percent=3"
    assert "more than 34 files" in caught.value.fix
    check_divided(1, 1, 3.0, "files", "widen `include` to")


def test_cpp_files_come_without_the_comments_at_their_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "cpp_package"
    (root / "include").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    for number in range(12):
        licence = "// Copyright\n\n/* a licence\n * in several lines */\n// and more\n\n"
        text = f"int value_{number}(); // stays\n"
        # A guard may stand before the licence or after it.
        parts = ("#pragma once\n", licence) if number % 2 else (licence, "#pragma once\n")
        (root / "include" / f"value_{number}.h").write_text("".join(parts) + text)
    (root / "include" / "comment.h").write_text("// nothing else\n")
    (root / "include" / "table.cpp").write_text("int table[] = {" + "123456, " * 200 + "};\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    files = code_files(CppSource(kind="cpp-source", packages=("cpp_package",)), 30.0)
    assert {f.key: f.text for f in (*files.training, *files.held_out)} == {
        f"cpp_package/include/value_{number}.h": f"#pragma once\nint value_{number}(); // stays\n"
        for number in range(12)
    }

"""The house's layers: imports point down only, and each outer library is known where it belongs.

Reads the syntax tree of every module, so it sees imports inside functions too.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "distillspec"

# A room may import those of earlier lines; rooms of one line do not import each other.
LEVELS = (
    {"text"},
    {"errors"},
    {"runtime", "divergence"},
    {"recipe"},
    {"speculation"},
    {"speculation/verify"},
    {"speculation/draft", "speculation/parallel"},
    {"speculation/choose"},
    {"speculation/decoding"},
    {"methods"},
    {"models"},
    {"models/vocabulary"},
    {"models/loading"},
    {"models/runners"},
    {"models/surgery"},
    {"models/sampling"},
    {"corpus/sources", "measure/stats"},
    {"corpus/stores", "measure/exact"},
    {"corpus/batches", "corpus/served", "measure/timed"},
    {"training", "measure/summary"},
    {"measure"},
    {"report/figures"},
    {"report"},
    {"export"},
    {"assembly"},
    {"workflows"},
    {"commands"},
    {"__main__"},
)
# These do not import each other, whatever their levels.
STRANGERS = {"corpus", "measure"}
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Naming a library's type in an annotation needs no knowledge of it: imports under TYPE_CHECKING
# are free. All others only here:
LIBRARIES = {
    "transformers": ("models/", "export/"),
    "peft": ("models/", "export/"),
    "gguf": ("models/loading/gguf_header.py",),
    "lightning": ("training/", "corpus/batches/data_module.py", "assembly/training.py"),
    "deepspeed": ("training/strategy.py",),
    "datasets": ("corpus/",),
    "evaluate": ("measure/summary/quality.py",),
    "matplotlib": ("report/",),
    "pydantic": ("recipe/",),
    "yaml": ("recipe/",),
    "openai": ("corpus/served/",),
}

# Importing these, and so `--help` and validation, must be instant.
LIGHT = (
    "__init__.py",
    "__main__.py",
    "commands/",
    "errors.py",
    "recipe/",
    "runtime/",
    "text/",
    "workflows/run_folder.py",
)
# What joins the processes of a run needs torch.
JOINS_PROCESSES = "runtime/processes.py"
HEAVY = {
    "torch",
    "openai",
    "lightning",
    "deepspeed",
    "datasets",
    "evaluate",
    "matplotlib",
    "numpy",
    "transformers",
    "peft",
}
# Extras that users install; the others are for those who change the code.
EXTRAS = ("endpoint", "gguf", "wandb")
# Libraries that are imported by another name than they are installed by.
INSTALLED_AS = {"yaml": "pyyaml"}


class Import(NamedTuple):
    """One imported name. when: "load", "call" (inside a function) or "typing"."""

    name: str
    line: int
    when: str


def imports_of(source: str) -> list[Import]:
    return list(_walk(ast.parse(source), "load"))


def _walk(node: ast.AST, when: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, when) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: write imports absolutely"
            for alias in child.names:
                yield Import(f"{child.module}.{alias.name}", child.lineno, when)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for statement in child.body:
                yield from _walk(ast.Module([statement], []), "typing")
            for statement in child.orelse:
                yield from _walk(ast.Module([statement], []), when)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, "call" if when == "load" else when)
        else:
            yield from _walk(child, when)


def room_of(path: str) -> str:
    """'models/runners/eager.py' -> 'models/runners', 'errors.py' -> 'errors'."""
    folder, _, name = path.rpartition("/")
    return folder or name.removesuffix(".py")


def room_of_import(name: str) -> str | None:
    """'distillspec.models.runners.eager.f' -> 'models/runners'; None for the package itself."""
    path = name.split(".")[1:]
    rooms = ["/".join(path[:end]) for end in range(len(path), 0, -1)]
    return next((room for room in rooms if room in LEVEL), None)


def faults(path: str, source: str) -> list[str]:
    """What the module at `path` (inside the package) may not do, with line numbers."""
    found = []
    for name, line, when in imports_of(source):
        top = name.partition(".")[0]
        if top == "distillspec":
            other = room_of_import(name)
            if other is not None and not _may_import(room_of(path), other):
                found.append(f"{path}:{line} {room_of(path)} imports {other}: not below it")
        elif top in LIBRARIES and when != "typing" and not path.startswith(LIBRARIES[top]):
            found.append(f"{path}:{line} {top} belongs to {', '.join(LIBRARIES[top])}")
        is_light = path.startswith(LIGHT) and path != JOINS_PROCESSES
        if top in HEAVY and when == "load" and is_light:
            found.append(f"{path}:{line} imports {top} when it is loaded: move it into a function")
    return found


def _may_import(room: str, other: str) -> bool:
    # What the package itself offers is looked up when it is asked for, wherever it comes from.
    if room in (other, "__init__"):
        return True
    if {room.split("/")[0], other.split("/")[0]} == STRANGERS:
        return False
    return LEVEL[other] < LEVEL[room]


def modules() -> list[str]:
    return sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules())
def test_imports_point_down_and_libraries_stay_where_they_belong(path: str) -> None:
    assert faults(path, (PACKAGE / path).read_text(encoding="utf-8")) == []


def test_every_room_has_a_level() -> None:
    rooms = {room_of(path) for path in modules() if not path.endswith("__init__.py")}
    assert rooms == LEVEL.keys()


def dependencies() -> set[str]:
    """What an installation brings, with the extras that users install."""
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for name in EXTRAS for one in optional[name])]
    return {re.split(r"[^\w.-]", one)[0].lower().replace("_", "-") for one in wanted}


def test_every_library_that_is_imported_is_a_dependency() -> None:
    own = {"distillspec", *sys.stdlib_module_names}
    imported = {
        one.name.partition(".")[0]
        for path in modules()
        for one in imports_of((PACKAGE / path).read_text(encoding="utf-8"))
    }
    names = {INSTALLED_AS.get(name, name).replace("_", "-") for name in imported - own}
    assert names - dependencies() == set()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("speculation/engine.py", "from distillspec.models.runners.eager import CausalRunner"),
        ("speculation/engine.py", "def f():\n    import distillspec.models"),
        ("measure/timed/bench.py", "from distillspec.corpus.sources import prompts"),
        ("measure/timed/bench.py", "from distillspec.measure.summary.records import Summary"),
        ("models/x.py", "class A:\n    def f(self):\n        from distillspec import assembly"),
        ("measure/evaluation.py", "def f():\n    import transformers.cache_utils"),
        ("training/module.py", "import deepspeed"),
        ("recipe/schema.py", "import torch.nn"),
        ("commands/run.py", "try:\n    import torch\nexcept ImportError:\n    pass"),
        ("corpus/sources/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
         "    from distillspec.measure import evaluation"),
    ],
)  # fmt: skip
def test_the_check_sees_each_kind_of_forbidden_import(path: str, source: str) -> None:
    assert len(faults(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("commands/run.py", "def main():\n    import torch\n    from distillspec import workflows"),
        (
            "measure/evaluation.py",
            "if TYPE_CHECKING:\n    from transformers import PreTrainedModel",
        ),
        ("models/x.py", "from distillspec.speculation.runner import Runner\nimport torch"),
        ("corpus/batches/data_module.py", "from lightning.pytorch import LightningDataModule"),
    ],
)
def test_the_check_lets_allowed_imports_pass(path: str, source: str) -> None:
    assert faults(path, source) == []

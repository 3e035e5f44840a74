"""The documentation: commands parse, files load, links lead somewhere, the language is plain."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml

import distillspec
from distillspec.commands.dispatch import main
from distillspec.errors import DistillSpecError
from distillspec.measure.summary.definitions import DEFINITIONS
from distillspec.recipe import aliases
from distillspec.recipe.loading import is_of_suite, load_comparison, load_recipe, load_suite
from distillspec.training.metrics_csv import COLUMNS
from eval.campaigns.docs_blocks import (
    ROOT,
    Block,
    Command,
    blocks,
    commands,
    every_block,
    pages,
    write_files,
)

GENERATED = ("cli.md", "recipe.md", "suite.md", "comparison.md", "results.md")
WRITTEN = [page for page in pages() if page.name not in GENERATED]
OUTSIDE = [
    ROOT / name
    for name in (
        *("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
        *("checkpoints/README.md", "data/README.md", "eval/README.md"),
    )
]
"""Files that are no pages of the site."""
SHIPPED = [*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "eval" / "suites").glob("*.yaml")]

BLOCKS = every_block()
ALL_COMMANDS = [one for block in BLOCKS for one in commands(block)]
NEEDS = {"gpu", "hub", "engine", "run-folder"}
NOT_SAID = (
    *("told", "anew", "beside", "of its own", "of their own", "dice", "likeliest", "rests", "says"),
    *("mend", "law", "teacher", "student", "verifier", "black box"),
)
FRAGMENT = {  # a whole file for a part of one
    "pair": {
        "target": "checkpoints/nano-python/target",
        "draft": "checkpoints/nano-python/draft",
    },
    "data": {"source": {"kind": "jsonl", "path": "data/my-prompts.jsonl"}},
}


@cache
def generator() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository's recipes and suites, and the files that the docs show."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copytree(ROOT / "eval" / "suites", tmp_path / "eval" / "suites")
    shutil.copytree(ROOT / "eval" / "metrics", tmp_path / "eval" / "metrics")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "nano-python").symlink_to(ROOT / "checkpoints" / "nano-python")
    write_files(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def refuse_old_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test of the docs may load a key or a value by its name of an earlier version."""

    def refuse(text: str, where: str) -> None:
        raise AssertionError(f"{where}: {text}")

    monkeypatch.setattr(aliases, "_note", refuse)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --- generated pages -----------------------------------------------------------------------------


def test_the_generated_pages_are_as_parsers_and_schemas_are_now() -> None:
    assert generator().stale() == [], "run: python docs/generate.py"


def test_metrics_defines_what_a_summary_and_the_training_log_hold() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    assert [name for name in (*DEFINITIONS, *COLUMNS) if f"`{name}`" not in page] == []


# --- commands ------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation() -> None:
    assert sorted((ROOT / "docs").rglob("*.md")) == sorted(pages()[1:])


def test_marks_name_what_is_known() -> None:
    wanted = {word for one in BLOCKS for word in one.marks.get("needs", "").split(", ") if word}
    assert wanted <= NEEDS


@pytest.mark.parametrize("command", ALL_COMMANDS, ids=lambda one: f"{one.place} {one.words[0]}")
def test_every_command_parses(command: Command) -> None:
    verb, *arguments = command.words
    if verb == "test":  # of launch.sh: the rest is pytest's
        return
    generator().parser_of(verb).parse_intermixed_args(arguments)


@pytest.mark.parametrize(
    "command",
    [one for one in ALL_COMMANDS if not one.place.startswith("README.md")],
    ids=lambda one: f"{one.place} {one.words[0]}",
)
def test_commands_name_built_in_files_without_a_path(command: Command) -> None:
    """Outside of a checkout there is no such path."""
    shipped = {name_of(path) for path in SHIPPED}
    assert [word for word in command.words if word.rpartition("=")[2] in shipped] == []


def may_be_tried(command: Command) -> bool:
    return not command.needs and command.words[0] in (
        *("run", "check", "generate", "train", "compare", "pretrain"),
    )


@pytest.mark.parametrize(
    "command",
    [one for one in ALL_COMMANDS if may_be_tried(one)],
    ids=lambda one: f"{one.place} {one.words[0]}",
)
def test_every_command_with_a_dry_run_passes_it(command: Command, checkout: Path) -> None:
    words = [word for word in command.words if word != "--dry-run"]
    if words[1] != "RUN-FOLDER":
        assert main([*words, "--dry-run"]) == 0


@pytest.mark.parametrize(
    "command",
    [one for one in ALL_COMMANDS if one.words[0] == "evaluate" and "--suite" in one.words],
    ids=lambda one: one.place,
)
def test_every_suite_that_is_measured_loads_with_its_changes(
    command: Command, checkout: Path
) -> None:
    suite = command.words[command.words.index("--suite") + 1]
    changes = [word for word in command.words if "=" in word and is_of_suite(word)]
    load_suite(suite, [word.removeprefix("suite.") for word in changes])


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.language == "yaml"], ids=lambda one: one.place
)
def test_every_yaml_block_is_a_recipe_a_suite_or_a_comparison_or_a_part_of_one(
    block: Block, checkout: Path
) -> None:
    found = yaml.safe_load(block.text)
    path = checkout / "block.yaml"
    if found.get("kind") == "comparison":
        path.write_text(block.text, encoding="utf-8")
        load_comparison(path)
    elif found.keys() & {"methods", "prompts", "drafts"}:
        path.write_text(block.text, encoding="utf-8")
        load_suite(path)
    else:
        path.write_text(yaml.safe_dump(FRAGMENT | found), encoding="utf-8")
        load_recipe(path)


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.language == "python"], ids=lambda one: one.place
)
def test_every_python_block_compiles(block: Block) -> None:
    text = block.text
    ast.parse(f"{{{text}}}" if text.startswith('"') else text)


@pytest.mark.parametrize(
    "block",
    [one for one in BLOCKS if one.marks.get("run") == "python"],
    ids=lambda one: one.place,
)
def test_every_python_block_that_is_marked_runs(block: Block, checkout: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=checkout, capture_output=True, text=True, check=False, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_python_api_has_every_public_name_and_every_example() -> None:
    page = (ROOT / "docs/reference/python-api.md").read_text(encoding="utf-8")
    assert [name for name in distillspec.__all__ if f"`distillspec.{name}`" not in page] == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = [path.name for path in (ROOT / "docs" / "examples").glob("*.py")]
    assert [name for name in examples if f"](../examples/{name})" not in page] == []
    assert [name for name in examples if f"](docs/examples/{name})" not in readme] == []


# --- links and language --------------------------------------------------------------------------


def prose(page: Path) -> str:
    """A page without fenced blocks, comments and the lines that mkdocstrings fills."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"( *)```.*?\n\1```", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"^:::.*$", "", text, flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {generator()._anchor(title) for title in titles}


@pytest.mark.parametrize("page", [*pages(), *OUTSIDE], ids=name_of)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        to = (page.parent / name).resolve() if name else page
        if not to.is_file() or (anchor and anchor not in anchors(to)):
            broken.append(link)
    assert broken == []


def files_named(page: Path) -> list[str]:
    """Paths and files of the repository that stand between backticks, without placeholders."""
    text = prose(page)
    if page.name == "CHANGELOG.md":
        text = re.sub(r"^### Removed\n.*?(?=^##|\Z)", "", text, flags=re.DOTALL | re.MULTILINE)
    words = [word for span in re.findall(r"`([^`\n]+)`", text) for word in span.split()]
    is_file = re.compile(
        r"(?:\./)?[\w./-]*\w\.(?:py|sh|toml|cff)|[\w.-]+(?:/[\w.-]+)+\.(?:md|ya?ml)"
    )
    in_room = re.compile(r"(?:distillspec|docs|eval|recipes|tests|\.ci)/[\w./-]*")
    found = [word for word in words if is_file.fullmatch(word) or in_room.fullmatch(word)]
    return [word for word in found if not re.search(r"[A-Z]{3,}(?![\w-]*\.(?:md|cff))", word)]


def test_every_file_between_backticks_is_there() -> None:
    rooms = [ROOT / name for name in ("distillspec", "docs", "eval", "tests")]
    names = {path.name for room in rooms for path in room.rglob("*.py")}
    names |= {path.name for path in ROOT.iterdir()}
    shown = {block.marks["file"] for block in BLOCKS if "file" in block.marks}
    missing = [
        f"{name_of(page)}: {name}"
        for page in [*pages(), *OUTSIDE]
        for name in files_named(page)
        if name not in names | shown
        and not any((base / name).exists() for base in (ROOT, ROOT / "distillspec", page.parent))
    ]
    assert missing == []


@pytest.mark.parametrize("page", [*pages(), *OUTSIDE, *SHIPPED], ids=name_of)
def test_no_text_has_a_key_or_a_value_of_an_earlier_version(page: Path) -> None:
    """Prose, code and comments; but the changelog's table has what was renamed."""
    old = {renamed.old for renamed in aliases.KEYS}
    old |= {value for values in aliases.VALUES.values() for value in values}
    text = page.read_text(encoding="utf-8")
    if page.name == "CHANGELOG.md":
        text = re.sub(r"^ *\|.*$", "", text, flags=re.MULTILINE)
    assert re.findall(rf"(?<![\w/-])(?:{'|'.join(sorted(old))})(?![\w-])", text) == []


@pytest.mark.parametrize("page", [*WRITTEN, *OUTSIDE], ids=name_of)
def test_lines_are_short_but_those_of_tables(page: Path) -> None:
    lines = [line for line in prose(page).splitlines() if not line.lstrip().startswith("|")]
    assert [line for line in lines if len(line) >= 120] == []


@pytest.mark.parametrize("page", [*pages(), *OUTSIDE], ids=name_of)
def test_pages_use_no_word_of_the_list(page: Path) -> None:
    text = re.sub(r"`[^`]*`|Student's t\b", "", prose(page))
    found = [word for word in NOT_SAID if re.search(rf"\b{word}\b", text, flags=re.IGNORECASE)]
    assert found == []


@pytest.mark.parametrize("page", pages()[1:], ids=lambda page: page.name)
def test_pages_begin_with_what_they_are_for_and_end_with_the_next_step(page: Path) -> None:
    parts = [part.strip() for part in prose(page).split("\n\n") if part.strip()]
    assert re.search(r"\bThis (page|tutorial)\b", parts[1]), parts[1]
    assert parts[-1].startswith("Next step: ")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_lists_and_tables_stand_apart_from_the_text_before(page: Path) -> None:
    """Else the site shows them as part of that text."""
    lines = prose(page).splitlines()
    begins = re.compile(r"- |\d+\. |\|")
    glued = [
        line
        for before, line in pairwise(lines)
        if begins.match(line) and before.strip() and not re.match(r"- |\d+\. |\||  ", before)
    ]
    assert glued == []


def sentences(page: Path) -> list[int]:
    """Words of each sentence outside of tables, headings and code."""
    kept = [
        re.sub(r"^\s*([-*]|\d+\.) ", "\n", line)
        for line in prose(page).splitlines()
        if not re.match(r"\s*(\||#|!\[)", line)
    ]
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", "\n".join(kept))
    parts = re.split(r"(?<=[.!?:])\s+(?=[A-Z`*])|\n\s*\n", text)
    return [len(part.split()) for part in parts if part.split()]


def test_half_of_the_readmes_sentences_have_at_most_16_words() -> None:
    assert median(sentences(ROOT / "README.md")) <= 16


def test_the_readme_is_about_120_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_the_symptoms_of_troubleshooting_are_messages_of_the_program() -> None:
    said = [(ROOT / "launch.sh").read_text(encoding="utf-8")]
    for module in (ROOT / "distillspec").rglob("*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        said += [
            one.value
            for one in ast.walk(tree)
            if isinstance(one, ast.Constant) and isinstance(one.value, str)
        ]
    everything = "\n".join(said)
    page = prose(ROOT / "docs/how-to/troubleshooting.md")
    first = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    quoted = [text for cell in first for text in re.findall(r"`([^`]{12,})`", cell)]
    assert [text for text in quoted if text not in everything] == []


def test_an_error_of_the_docs_is_the_one_that_the_program_gives(checkout: Path) -> None:
    with pytest.raises(DistillSpecError, match="unknown key 'distil'"):
        load_recipe("recipes/nano-python.yaml", ["distil.divergence=tvd"])


def test_blocks_know_their_marks(tmp_path: Path) -> None:
    page = ROOT / "docs/tutorials/your-own-pair.md"
    found = [block for block in blocks(page) if "file" in block.marks]
    assert [block.marks["file"] for block in found] == [
        "data/my-prompts.jsonl",
        "recipes/my-pair.yaml",
    ]

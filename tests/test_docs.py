"""The documentation: commands parse, files load, links lead somewhere, the language is plain."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml

from distillspec.commands.dispatch import COMMANDS, main
from distillspec.errors import DistillSpecError
from distillspec.measure.summary.definitions import DEFINITIONS
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

GENERATED = ("cli.md", "recipe.md", "suite.md", "comparison.md")
WRITTEN = [page for page in pages() if page.name not in GENERATED]
SHORT = [ROOT / "eval" / "README.md", ROOT / "data" / "README.md"]  # point to the pages
FORMER = {"tune": "auto"}
"""Verbs of the docs -> their former names, which the program may still have."""

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


def known(verb: str) -> str:
    return verb if verb in COMMANDS else FORMER.get(verb, verb)


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
    generator().parser_of(known(verb)).parse_intermixed_args(arguments)


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


@pytest.mark.parametrize("page", [*pages(), *SHORT], ids=lambda page: page.name)
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


@pytest.mark.parametrize("page", [*WRITTEN, *SHORT], ids=lambda page: page.name)
def test_lines_are_short_but_those_of_tables(page: Path) -> None:
    lines = [line for line in prose(page).splitlines() if not line.lstrip().startswith("|")]
    assert [line for line in lines if len(line) >= 120] == []


@pytest.mark.parametrize("page", [*WRITTEN, *SHORT], ids=lambda page: page.name)
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

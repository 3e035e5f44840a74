from __future__ import annotations

import re
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.summary.quality import score
from distillspec.recipe import builtin
from distillspec.recipe.hub_id import is_hub_id
from distillspec.recipe.loading import load_comparison, load_recipe, load_suite
from distillspec.recipe.model_line import model_line

ROOT = Path(__file__).parents[2]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((name, True) for name in ("quick", "mt-bench", "qwen2.5-7b--qwen2.5-0.5b", "lm1b-33m")),
        *((name, False) for name in ("quick.yaml", "./quick", "a/quick", "", ".", "..", "-quick")),
    ],
)
def test_a_separator_or_a_suffix_makes_a_path(text: str, expected: bool) -> None:
    assert builtin.is_name(text) is expected


def test_every_shipped_file_has_a_name(elsewhere: Path) -> None:
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert set(builtin.names("recipe")) == recipes
    suites = {path.stem for path in (ROOT / "eval/suites").glob("*.yaml")}
    assert set(builtin.names("suite")) | set(builtin.names("comparison")) == suites
    assert set(builtin.names("comparison")) == {
        "curve",
        "drift",
        "made-drafts",
        "objectives",
        "sources",
    }
    for name in builtin.names("recipe"):
        assert load_recipe(name).name == name
    for name in builtin.names("suite"):
        assert load_suite(name).name == name
    for name in builtin.names("comparison"):
        assert load_comparison(name).name == name


def test_every_built_in_recipe_and_suite_names_what_is_built_in(elsewhere: Path) -> None:
    for name in builtin.names("recipe"):
        recipe = load_recipe(name)
        if recipe.kind == "distill":
            load_suite(recipe.evaluate.suite)
    for name in builtin.names("suite"):
        quality = load_suite(name).quality
        assert quality is None or builtin.find("metric", quality).is_dir()


def test_a_path_never_means_a_built_in_file(elsewhere: Path) -> None:
    for path in ("quick.yaml", "./quick", "suites/quick", Path("quick")):
        with pytest.raises(DistillSpecError, match="no such suite") as caught:
            load_suite(path)
        assert "a file needs its path" not in caught.value.fix


def test_a_file_of_the_current_folder_comes_before_a_built_in_one(elsewhere: Path) -> None:
    Path("quick").write_text("name: quick\nseed: 7\n")
    assert load_suite("quick").seed == 7
    Path("parses").mkdir()
    assert builtin.find("metric", "parses") != Path("parses")  # holds no metric
    Path("parses/parses.py").touch()
    assert builtin.find("metric", "parses") == Path("parses")


@pytest.mark.parametrize(
    ("name", "load"),
    [("nano-pyton", load_recipe), ("qick", load_suite), ("sorces", load_comparison)],
)
def test_an_unknown_name_lists_the_names_and_the_nearest(
    name: str, load: type, elsewhere: Path
) -> None:
    with pytest.raises(DistillSpecError) as caught:
        load(name)
    fix = caught.value.fix
    assert re.search(r"'(nano-python|quick|sources)'\?", fix)
    assert len(re.findall(r"nano-python-draft|methods|objectives", fix)) >= 1


def test_the_resolved_recipe_keeps_what_was_written(elsewhere: Path) -> None:
    recipe = load_recipe("nano-python", ["evaluate.suite=grid"])
    assert recipe.kind == "distill"
    assert (recipe.evaluate.suite, recipe.pair.target) == (
        "grid",
        "checkpoints/nano-python/target-sympy",
    )


def test_the_built_in_pair_is_taken_where_the_current_folder_has_none(elsewhere: Path) -> None:
    for name in ("checkpoints/nano-python/draft", "nano-python/draft", "nano-python/draft/"):
        assert Path(builtin.located(name), "config.json").is_file()
        assert not is_hub_id(name)
        assert "built-in" in model_line(name, "pair.draft")
    assert is_hub_id("nano-python/other")
    own = Path("nano-python/draft")
    own.mkdir(parents=True)
    assert builtin.located("nano-python/draft") == "nano-python/draft"
    assert builtin.located("checkpoints/runs") == "checkpoints/runs"


def test_a_metric_is_loaded_by_its_name(elsewhere: Path) -> None:
    with pytest.raises(DistillSpecError, match="no metric module") as caught:
        score("parsers", [])
    assert "parses" in caught.value.fix

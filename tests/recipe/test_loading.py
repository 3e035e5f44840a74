from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.data import HubSource, JsonlSource
from distillspec.recipe.loading import (
    dump_yaml,
    is_of_suite,
    json_schema,
    load_recipe,
    load_suite,
    suite_json_schema,
)
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.schema import Recipe

ROOT = Path(__file__).parents[2]
SMALLEST = """\
pair: {target: t, draft: d}
data:
  source: {kind: jsonl, path: d.jsonl}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "my-pair.yaml"
    path.write_text(SMALLEST, encoding="utf-8")
    return path


def loaded(path: Path, *overrides: str) -> Recipe:
    recipe = load_recipe(path, overrides)
    assert isinstance(recipe, Recipe)
    return recipe


def refused(path: str | Path, *overrides: str) -> DistillSpecError:
    with pytest.raises(DistillSpecError) as caught:
        load_recipe(path, overrides)
    return caught.value


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_recipe_loads_and_loads_again_from_its_dump(
    path: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(path)
    again = tmp_path / "again.yaml"
    again.write_text(dump_yaml(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe
    assert recipe.name == path.stem


SUITES = [
    path
    for path in sorted((ROOT / "eval" / "suites").glob("*.yaml"))
    if "kind: comparison" not in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", SUITES, ids=lambda p: p.name)
def test_every_shipped_suite_loads_and_loads_again_from_its_dump(
    path: Path, tmp_path: Path
) -> None:
    suite = load_suite(path)
    again = tmp_path / "again.yaml"
    again.write_text(dump_yaml(suite), encoding="utf-8")
    assert load_suite(again) == suite


def test_the_smallest_recipe_takes_its_name_from_the_file(recipe: Path) -> None:
    assert loaded(recipe).name == "my-pair"
    assert loaded(recipe, "name=other").name == "other"


def test_overrides_change_values_and_are_read_as_yaml(recipe: Path) -> None:
    changed = loaded(
        recipe,
        "distill.temperature=5e-1",
        "optimizer.betas=[0.8, 0.9]",
        "distill.source={target: 1.0}",
        "lora.rank=4",
        "data.max_prompts=null",
        "data.source.path=a=b.jsonl",
    )
    assert changed.distill.temperature == 0.5
    assert changed.optimizer.betas == (0.8, 0.9)
    assert changed.distill.source.target == 1.0
    assert changed.lora is not None
    assert changed.lora.rank == 4
    assert isinstance(changed.data.source, JsonlSource)
    assert changed.data.source.path == "a=b.jsonl"


def test_a_later_override_wins(recipe: Path) -> None:
    assert loaded(recipe, "seed=1", "seed=2").seed == 2


def test_an_override_of_an_alias_leaves_the_anchor_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    text = "pair: {target: t, draft: d}\ndata:\n  source: &s {kind: jsonl, path: a}\n"
    path.write_text(text + "  held_out: *s\n", encoding="utf-8")
    data = loaded(path, "data.held_out.path=b").data
    assert isinstance(data.source, JsonlSource)
    assert data.source.path == "a"


def test_a_fault_in_an_override_is_sought_on_the_command_line(recipe: Path) -> None:
    error = refused(recipe, "distill.temperature=9")
    assert error.where == f"override 'distill.temperature=9' of {recipe}"
    error = refused(recipe, "distil.temperature=1")
    assert error.what == "unknown key 'distil'"
    assert error.fix == "did you mean 'distill'?"


@pytest.mark.parametrize("text", ["temperature", "=1", "a..b=1", ".a=1"])
def test_what_is_no_override_is_refused(recipe: Path, text: str) -> None:
    assert refused(recipe, text).what == f"'{text}' is not an override"


def test_an_override_inside_a_value_is_refused(recipe: Path) -> None:
    assert refused(recipe, "pair.target.x=1").what == "'pair.target' is a value, not a section"


def test_an_override_that_is_not_yaml_is_refused(recipe: Path) -> None:
    assert refused(recipe, "seed=[1").where.startswith("override 'seed=...'")


def test_an_unknown_key_in_a_file_names_file_and_section(recipe: Path) -> None:
    recipe.write_text(SMALLEST + "distill: {divergense: tvd}\n", encoding="utf-8")
    error = refused(recipe)
    assert error.where == f"{recipe}: distill"
    assert error.fix == "did you mean 'divergence'?"


def test_the_kind_chooses_the_model_and_an_unknown_one_is_refused(recipe: Path) -> None:
    assert isinstance(load_recipe(ROOT / "recipes/nano-python-target.yaml"), PretrainRecipe)
    error = refused(recipe, "kind=pretrian")
    assert error.what == "'kind' must be one of distill, pretrain, not \"pretrian\""
    assert error.fix == "did you mean 'pretrain'?"


def test_a_missing_file_names_the_nearest(recipe: Path) -> None:
    error = refused(recipe.with_name("my-pear.yaml"))
    assert error.what == "no such recipe"
    assert error.fix == f"did you mean '{recipe}'?"


def test_a_missing_run_folder_names_the_runs_there_are(recipe: Path) -> None:
    run = recipe.parent / "runs" / "20260101-120000-abcd"
    run.mkdir(parents=True)
    (run / "recipe.yaml").touch()
    error = refused(run.with_name("nope"))
    assert error.fix == f"the runs in {run.parent} are: {run.name}"


def test_a_folder_is_refused_and_a_run_folder_says_how_to_resume(recipe: Path) -> None:
    assert refused(recipe.parent).what == "this is a folder, not a recipe"
    recipe.rename(recipe.with_name("recipe.yaml"))
    assert f"distillspec run {recipe.parent}" in refused(recipe.parent).fix


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "this recipe is empty"),
        (b"# only a comment\n", "this recipe is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "this recipe cannot be read: it is not text in UTF-8"),
        (b"\x00\x01\x02", "not text"),
        (b"- a\n- b\n", "this recipe is not a mapping of keys but a list"),
        (b"just words\n", "this recipe is not a mapping of keys but a str"),
        (b"pair: {target: [\n", "not YAML"),
    ],
)
def test_what_is_not_a_recipe_says_so(recipe: Path, content: bytes, what: str) -> None:
    recipe.write_bytes(content)
    assert what in refused(recipe).what


def test_a_path_through_a_file_or_with_a_null_byte_is_a_users_error(recipe: Path) -> None:
    assert "no such recipe" in refused(recipe / "below.yaml").what
    assert "cannot be read: embedded null byte" in refused("a\0b").what


def test_a_suite_complains_like_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("gammas: [1, 99]\n", encoding="utf-8")
    with pytest.raises(DistillSpecError, match="gammas") as caught:
        load_suite(path)
    assert caught.value.what == "'gammas[1]' must be a whole number >= 1 and <= 64, not 99"
    with pytest.raises(DistillSpecError, match="no such suite"):
        load_suite(tmp_path / "absent.yaml")


def test_a_missing_suite_is_answered_with_the_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(DistillSpecError) as caught:
        load_suite("gird.yaml")
    assert "built-in 'grid'" in caught.value.fix


def test_a_shipped_suite_is_pointed_at_a_file_by_one_override() -> None:
    for name in ("gsm8k", "mbpp", "humaneval", "mt-bench", "spec-bench"):
        path = ROOT / "eval" / "suites" / f"{name}.yaml"
        suite = load_suite(path, ["prompts.source.path=rows.jsonl", "prompts.count=3"])
        shipped = load_suite(path).prompts.source
        source = suite.prompts.source
        assert isinstance(source, HubSource) and isinstance(shipped, HubSource)
        assert (suite.prompts.count, shipped.local) == (3, None)
        assert source.local is not None and source.local.path == "rows.jsonl"
        assert (source.local.prompt, source.local.turns) == (shipped.prompt, shipped.turns)
    with pytest.raises(DistillSpecError) as caught:
        load_suite(path, ["prompts.source.pth=rows.jsonl"])
    assert caught.value.where.startswith("override 'prompts.source.pth=...'")
    assert caught.value.fix == "did you mean 'path'?"


def test_an_override_is_of_the_suite_where_only_a_suite_has_its_key() -> None:
    for text in ("prompts.count=3", "gammas=[2]", "suite.name=x", "suite.seed=1", "suite=x"):
        assert is_of_suite(text)
    for text in ("name=x", "seed=1", "data.source.path=x", "evaluate.suite=prompts", "unknown=1"):
        assert not is_of_suite(text)


def test_the_json_schemas_describe_recipes_of_both_kinds_and_suites() -> None:
    schema = json_schema()
    assert {"Recipe", "PretrainRecipe"} <= schema["$defs"].keys()
    assert schema["$schema"].endswith("2020-12/schema")
    assert "gammas" in suite_json_schema()["properties"]


KEY = "PlainLookingKey4711"


@pytest.mark.parametrize(
    "override",
    [
        f"pair.token={KEY}",
        f"pair.endpoint.api_key={KEY}",
        f"pair.endpoint.key={KEY}",
        f"pair.endpoint.key_variable={KEY}",
        f"pair.endpoint.url=http://user:{KEY}@h/v1",
        f"pair.endpoint.body.api_key={KEY}",
        f"pair.endpoint={{url: 5, model: m, api_key: {KEY}}}",
        f"pair.endpoint.body=[{{api_key: {KEY}}}]",
        f"pair.target={{token: {KEY}}}",
        f"pair.endpoint.body={{x: [{KEY}}}",
        f"name.secret={KEY}",
        f"zzz={{a: {{b: {KEY}}}}}",
    ],
)
def test_no_error_repeats_what_may_be_a_secret(override: str) -> None:
    with pytest.raises(DistillSpecError) as caught:
        load_recipe("recipes/nano-python.yaml", [override])
    assert KEY not in str(caught.value)
    assert override.partition("=")[0].split(".")[0] in str(caught.value)

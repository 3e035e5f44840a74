from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from distillspec.errors import DistillSpecError
from distillspec.recipe.data import JsonlSource, PythonSource
from distillspec.recipe.loading import load_suite
from distillspec.recipe.prompt_plan import PromptsConfig, PromptSource
from distillspec.recipe.suite import SourceKind, Suite


def test_the_defaults_are_a_whole_suite() -> None:
    suite = Suite()
    assert suite.drafts == ("undistilled", "distilled", "control")
    assert [method.name for method in suite.methods] == ["standard"]
    assert (suite.methods[0].draft.kind, suite.methods[0].verify.kind) == ("chain", "token")


def test_a_key_of_earlier_versions_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("name: old\nbootstrap: 1000\n", encoding="utf-8")
    with pytest.raises(DistillSpecError, match="unknown key 'bootstrap'") as caught:
        load_suite(str(tmp_path / "old.yaml"))
    assert "delete it: intervals are Student's t over source documents" in caught.value.fix


@pytest.mark.parametrize("key", ["drafts", "gammas", "temperatures"])
def test_a_value_that_stands_twice_is_refused(key: str) -> None:
    twice: dict[str, Any] = {
        "drafts": ["distilled", "distilled"],
        "gammas": [2, 2],
        "temperatures": [1.0, 1.0],
    }
    with pytest.raises(ValidationError, match=f"{key} lists a value twice"):
        Suite.model_validate({key: twice[key]})


@pytest.mark.parametrize(
    "values",
    [
        {"gammas": []},
        {"gammas": [0]},
        {"temperatures": [-0.1]},
        {"methods": [{"draft": {"kind": "unheard-of"}}]},
        {"drafts": ["other"]},
        {"confidence": 1.0},
        {"bootstrap": 300},  # intervals are no resamples any more
        {"unknown": 1},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Suite.model_validate(values)


def test_texts_can_be_more_than_the_decoded_prompts_or_fewer() -> None:
    def plan(**prompts: int) -> tuple[int, int]:
        found = Suite.model_validate({"prompts": prompts}).prompts
        return found.read, found.most

    assert plan(count=8) == (8, 8)
    assert plan(count=8, texts=20) == (20, 20)
    assert plan(count=8, texts=3) == (3, 8)


SEQUENCES = {"kind": "sequences", "count": 2}


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"choose": {"kind": "ucb", "arms": ["unheard-of"]}}, "'unheard-of': name one of"),
        ({"choose": {"kind": "ucb", "arms": ["standart@2"]}}, "did you mean 'standard'"),
        ({"choose": {"kind": "exp3", "arms": ["standard@0"]}}, "give a gamma of 1 to 64"),
        ({"choose": {"kind": "exp3", "arms": ["mine"]}}, "no method of this suite: 'mine'"),
        ({"choose": {"kind": "ucb", "arms": ["plain@2"]}}, "name it without @2"),
        ({"choose": {"kind": "ucb", "arms": ["standard"], "window": 2}}, "cannot hold 3 arms"),
        ({"choose": {"kind": "exp3", "arms": ["standard", "standard@4"]}}, "lists an arm twice"),
        ({"choose": {"kind": "exp3", "arms": ["lossy"]}}, "has a lossy arm and must say so"),
        ({"gammas": [4, 4]}, "lists a gamma twice"),
        ({"stop": {"kind": "svip"}, "fallback": {"baseline": "mine@2"}}, "such as 'standard@4'"),
        (
            {"stop": {"kind": "svip"}, "fallback": {"baseline": "standard"}},
            "such as 'standard@4'",
        ),
        ({"choose": {"kind": "ucb", "arms": ["card"]}}, "set choose.per: text"),
        ({"choose": {"kind": "hedge", "arms": ["standard"], "per": "text"}}, "per: round"),
        ({"choose": {"kind": "hedge", "arms": ["block"]}}, "leave out 'block'"),
        ({"choose": {"kind": "hedge", "arms": ["svip"]}}, "leave out 'svip'"),
        ({"choose": {"kind": "hedge", "arms": ["spectr"]}}, "leave out 'spectr'"),
    ],
)
def test_methods_that_make_no_sense_together_are_refused(method: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Suite.model_validate(
            {
                "methods": [
                    {"name": "standard"},
                    {"name": "lossy", "verify": {"kind": "lenient", "eps": 0.5}},
                    {"name": "block", "verify": {"kind": "block"}},
                    {"name": "svip", "stop": {"kind": "svip"}},
                    {"name": "spectr", "draft": SEQUENCES, "verify": {"kind": "kseq"}},
                    {"name": "card", "parallel": {"kind": "card"}},
                    {"name": "plain", "draft": {"kind": "none"}},
                    {"name": "mine", **method},
                ]
            }
        )


def test_arms_of_which_none_tells_what_can_be_earned_are_refused() -> None:
    card = {"name": "card", "parallel": {"kind": "card"}}
    plain = {"name": "plain", "draft": {"kind": "none"}}
    ucb = {"name": "ucb", "choose": {"kind": "ucb", "per": "text", "arms": ["card", "plain"]}}
    with pytest.raises(ValidationError, match="add {name: standard} to the suite"):
        Suite.model_validate({"methods": [card, plain, ucb]})
    assert Suite.model_validate({"methods": [{"name": "standard"}, card, plain, ucb]})


def test_a_method_may_have_gammas_of_its_own_and_arms_take_them() -> None:
    suite = Suite.model_validate(
        {
            "gammas": [2, 4],
            "methods": [
                {"name": "standard"},
                {"name": "adaedl", "stop": {"kind": "adaedl"}, "gammas": [16]},
                {"name": "bandit", "choose": {"kind": "ucb", "arms": ["standard@3", "adaedl"]}},
            ],
        }
    )
    standard, adaedl, bandit = suite.methods
    assert [suite.of(method) for method in suite.methods] == [(2, 4), (16,), (16,)]
    assert suite.arms(bandit) == [(standard, 3), (adaedl, 16)]
    assert standard.is_standard and not adaedl.is_standard and not bandit.is_standard


def test_a_method_that_names_its_draft_is_measured_with_that_one_alone() -> None:
    suite = Suite.model_validate(
        {
            "drafts": ["distilled", "control"],
            "methods": [
                {"name": "standard"},
                {"name": "weak", "draft": {"kind": "chain", "model": "undistilled"}},
                {"name": "lookup", "draft": {"kind": "lookup"}},
            ],
        }
    )
    drafts = ("undistilled", "distilled", "control")
    measured = {
        method.name: [draft for draft in drafts if suite.measures(draft, method)]
        for method in suite.methods
    }
    assert measured == {
        "standard": ["distilled", "control"],
        "weak": ["undistilled"],
        "lookup": ["distilled", "control"],
    }
    assert suite.named_models() == {"undistilled": "weak"}


CODE = PythonSource(kind="python-source", standard_library=True)
ROWS = JsonlSource(kind="jsonl", path="rows.jsonl")


def test_a_metric_is_run_on_its_own_kinds_of_prompts_alone() -> None:
    suite = Suite(quality="metric", quality_on=("python-source",))
    assert suite.scored_on(CODE) is suite
    assert suite.scored_on(ROWS).quality is None
    assert Suite(quality="metric").scored_on(ROWS).quality == "metric"
    mixed = suite.model_copy(update={"prompts": PromptsConfig(sources={"a": CODE, "b": ROWS})})
    assert mixed.scored_on(CODE).quality is None
    brought = suite.model_copy(update={"prompts": PromptsConfig(source=CODE)})
    assert brought.scored_on(ROWS).quality == "metric"


@pytest.mark.parametrize("name", ["quick", "grid", "methods"])
def test_the_suites_that_every_recipe_can_use_score_no_prose_as_python(name: str) -> None:
    suite = load_suite(f"eval/suites/{name}.yaml")
    assert suite.scored_on(CODE).quality == "parses"
    assert suite.scored_on(ROWS).quality is None


def test_the_kinds_of_prompts_are_those_that_there_are() -> None:
    sources = get_args(get_args(PromptSource)[0])
    kinds = {get_args(one.model_fields["kind"].annotation)[0] for one in sources}
    assert set(get_args(SourceKind)) == kinds

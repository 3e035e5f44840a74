from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distillspec.errors import DistillSpecError
from distillspec.recipe.complaint import complaint, dotted
from distillspec.recipe.expectation import root
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.recipe.section import Section
from distillspec.recipe.suite import Suite
from distillspec.text.nearest import nearest


def reported(data: Any, model: type[Section] = Recipe) -> DistillSpecError:
    """What is said of `data`, which must not fit `model`."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(data), strict=True)
    return complaint(caught.value, data, root(model.model_json_schema()), "f.yaml", {})


def recipe(**sections: Any) -> dict[str, Any]:
    source = {"kind": "jsonl", "path": "d.jsonl"}
    return {"pair": {"target": "t", "draft": "d"}, "data": {"source": source}} | sections


def test_an_unknown_key_names_the_nearest_one_and_its_section() -> None:
    error = reported(recipe(distill={"probe": {"gama": 3}}))
    assert str(error) == (
        "unknown key 'gama'\n  where: f.yaml: distill.probe\n  fix:   did you mean 'gamma'?"
    )


def test_an_unknown_key_of_another_section_is_sent_there() -> None:
    assert reported(recipe(distill={"learning_rate": 1})).fix == (
        "'learning_rate' belongs under 'optimizer'"
    )


def test_an_unknown_key_like_no_other_gets_the_list_of_keys() -> None:
    error = reported(recipe(evaluate={"zzz": 1}))
    assert error.fix == "the keys here are suite, control, control_rates"
    assert reported(recipe(zzz=1)).where == "f.yaml: top level"


def test_an_unknown_key_is_told_before_the_missing_one_that_it_stands_for() -> None:
    error = reported(recipe(pair={"target": "t", "drft": "d"}))
    assert error.what == "unknown key 'drft'"
    assert error.fix == "did you mean 'draft'? (faults too: pair.draft)"


def test_the_keys_of_the_chosen_kind_are_meant() -> None:
    error = reported(recipe(data={"source": {"kind": "jsonl", "path": "x", "promt": "p"}}))
    assert error.where == "f.yaml: data.source"
    assert error.fix == "did you mean 'prompt'?"


def test_a_missing_key_says_what_it_holds() -> None:
    error = reported(recipe(pair={"target": "t"}))
    assert error.what == "missing key 'pair.draft'"
    assert error.where == "f.yaml: pair"
    assert error.fix == (
        "add `draft:` text or a mapping whose kind is one of pruned, random (draft to train: a "
        "local folder or a Hub id, or how one is made)"
    )


@pytest.mark.parametrize(
    ("draft", "what", "where", "fix"),
    [
        (
            {"kind": "pruned", "layers": 2, "intermedate_size": 3},
            "unknown key 'intermedate_size'",
            "f.yaml: pair.draft",
            "did you mean 'intermediate_size'?",
        ),
        (
            {"kind": "prune", "layers": 2},
            "'pair.draft.kind' must be one of pruned, random, not \"prune\"",
            "f.yaml: pair.draft",
            "did you mean 'pruned'?",
        ),
        (
            {"layers": 2},
            "missing key 'pair.draft.kind'",
            "f.yaml: pair.draft",
            "add `kind:`, one of pruned, random",
        ),
        (
            {"kind": "random"},
            "missing key 'pair.draft.shape'",
            "f.yaml: pair.draft",
            "add `shape:` a mapping of keys",
        ),
        (
            {"kind": "pruned", "layers": [3, 1]},
            "layers must be distinct and in ascending order, as in the target",
            "f.yaml: pair.draft.layers",
            "write layers: [1, 3]",
        ),
        (
            {"kind": "pruned", "layers": "all"},
            "'pair.draft.layers' must be a whole number >= 1 and <= 4096 or a list of at least "
            '1: a whole number >= 0 and <= 4095, not "all"',
            "f.yaml: pair.draft",
            None,
        ),
    ],
)
def test_where_text_or_a_mapping_may_stand_the_one_that_stands_is_told_of(
    draft: dict[str, Any], what: str, where: str, fix: str | None
) -> None:
    error = reported(recipe(pair={"target": "t", "draft": draft}))
    assert (error.what, error.where) == (what, where)
    assert fix is None or error.fix == fix


def test_a_mapping_where_only_text_may_stand_is_told_as_such() -> None:
    error = reported(recipe(pair={"target": {"kind": "pruned"}, "draft": "d"}))
    assert error.what == '\'pair.target\' must be text or null, not {"kind": "pruned"}'


@pytest.mark.parametrize(
    ("section", "values", "what"),
    [
        ("distill", {"temperature": 9}, "a number >= 1e-05 and <= 4, not 9"),
        ("distill", {"batch_size": "3"}, 'a whole number >= 1 and <= 1,048,576, not "3"'),
        ("distill", {"batch_size": 3.0}, "a whole number >= 1 and <= 1,048,576, not 3.0"),
        ("distill", {"batch_size": True}, "a whole number >= 1 and <= 1,048,576, not true"),
        ("evaluate", {"suite": 3}, "text, not 3"),
        ("hardware", {"threads": 0}, "a whole number >= 1 and <= 4096 or null, not 0"),
        ("hardware", {"threads": 10**13}, ">= 1 and <= 4096 or null, not 10000000000000"),
        ("optimizer", {"learning_rate": 1e308}, "a number > 0 and <= 10, not 1e+308"),
        ("hardware", {"device": "tpu"}, 'one of auto, cpu, cuda, not "tpu"'),
        ("optimizer", {"betas": [0.9]}, "< 1, not [0.9]"),
        ("optimizer", {"betas": [0.9, 2]}, "a number >= 0 and < 1, not 2"),
        ("lora", {"targets": 3}, 'a list of at least 1: text or "all-linear", not 3'),
        ("pair", 3, "a mapping of keys, not 3"),
    ],
)
def test_a_wrong_value_names_key_value_and_what_is_allowed(
    section: str, values: Any, what: str
) -> None:
    error = reported(recipe(**{section: values}))
    key = next(iter(values)) if isinstance(values, dict) else None
    assert error.what.startswith(f"'{section}.{key}" if key else f"'{section}'")
    assert error.what.endswith(what)
    assert "pydantic" not in str(error)


def test_a_wrong_kind_names_the_kinds_and_the_nearest() -> None:
    error = reported(recipe(data={"source": {"kind": "python-sauce"}}))
    assert error.what == (
        "'data.source.kind' must be one of chat-topics, cpp-source, hub, jsonl, python-source, "
        'not "python-sauce"'
    )
    assert error.fix == "did you mean 'python-source'?"


def test_a_missing_kind_is_a_missing_key() -> None:
    error = reported(recipe(data={"source": {"path": "x"}}))
    assert error.what == "missing key 'data.source.kind'"
    assert error.fix == "add `kind:`, one of chat-topics, cpp-source, hub, jsonl, python-source"


def test_a_rule_over_several_keys_speaks_for_itself() -> None:
    error = reported(recipe(distill={"source": {"fixed": 0.5}}))
    assert error.what == (
        "the shares fixed + target + draft + speculative + replay must add up to 1, not 0.5"
    )
    assert error.where == "f.yaml: distill.source"


def test_several_faults_are_named() -> None:
    error = reported(recipe(distill={"temperature": 9, "batch_size": 0}, seed=-1))
    assert "'seed'" in error.what
    assert error.fix.endswith("(faults too: distill.batch_size, distill.temperature)")


def test_a_place_in_a_list_is_named_by_its_index() -> None:
    error = reported({"methods": [{}, {"name": 3}]}, Suite)
    assert error.what == r"'methods[1].name' must be text that matches ^[^@\s]+$, not 3"


def test_paths_are_written_with_dots_and_indices() -> None:
    assert dotted(("methods", 0, "name")) == "methods[0].name"
    assert dotted(()) == ""


def test_the_nearest_word_is_found_or_none() -> None:
    assert nearest("gama", ["alpha", "gamma"]) == "gamma"
    assert nearest("xyz", ["alpha", "gamma"]) is None


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("distill.gama=3", "did you mean 'distill.speculative.gamma' or 'distill.probe.gamma'?"),
        ("distill.learning_rat=3", "did you mean 'optimizer.learning_rate'?"),
        ("learning_rate=3", "'learning_rate' belongs under 'optimizer'"),
        ("evaluate.zzz=1", "the keys here are suite, control, control_rates"),
    ],
)
def test_a_misspelt_override_names_the_nearest_key_of_any_section(
    override: str, fix: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps(recipe()), encoding="utf-8")
    with pytest.raises(DistillSpecError) as caught:
        load_recipe(path, [override])
    assert caught.value.fix == fix
    assert override.partition("=")[0] in caught.value.where

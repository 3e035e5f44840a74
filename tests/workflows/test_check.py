from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import Recipe
from distillspec.workflows import check, generate
from tests.served import NANO, Served

SUITE = """\
name: tiny
prompts: {count: 3}
gammas: [1, 3]
temperatures: [1.0]
max_new_tokens: 8
runner: {kind: eager, dtype: float32}
"""


@pytest.fixture
def recipe(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    rows = ({"prompt": f"def f{i}(x):", "response": "\n    return x"} for i in range(30))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tiny.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    return Recipe.model_validate(
        {
            "name": "tiny",
            "pair": {"target": str(tiny_pair / "target"), "draft": str(tiny_pair / "draft")},
            "data": {
                "source": {"kind": "jsonl", "path": "rows.jsonl"},
                "held_out_percent": 25.0,
                "max_prompt_tokens": 64,
                "max_response_tokens": 16,
            },
            "evaluate": {"suite": "tiny.yaml"},
            "hardware": {"device": "cpu", "precision": "float32"},
        }
    )


def test_what_was_found_is_json_with_a_verdict_per_engine(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.run(recipe, as_json=True, min_speedup=None) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["vocab_size"] == 300
    assert {e["engine"] for e in found["engines"]} >= {"transformers", "vLLM", "SGLang"}
    (expected,) = found["expectations"]
    assert 0.0 < expected["alpha"] < 1.0
    assert expected["draft_to_target_time"] > 0.0


@pytest.mark.parametrize(("lora", "is_frozen"), [(None, False), ({"rank": 2}, True)])
def test_the_memory_of_training_counts_what_is_trained(
    recipe: Recipe,
    lora: dict[str, int] | None,
    is_frozen: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = Recipe.model_validate(recipe.model_dump() | {"lora": lora})
    check.run(plan, as_json=True, min_speedup=None)
    found = json.loads(capsys.readouterr().out)
    every_weight = 12 * found["draft_parameters"]
    assert (found["memory"]["draft_training"] == every_weight) != is_frozen
    assert found["memory"]["draft_training"] <= every_weight
    assert found["memory"]["process"] > 2**26  # torch alone has more


def test_one_prompt_has_no_interval_in_words_and_null_in_json(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tiny.yaml").write_text(SUITE.replace("count: 3", "count: 1"))
    check.run(recipe, as_json=False, min_speedup=None)
    printed = capsys.readouterr().out
    assert "no interval" in printed
    assert "nan" not in printed

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    check.run(recipe, as_json=True, min_speedup=None)
    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["expectations"][0]["alpha_low"] is None


def test_a_floor_that_is_not_reached_gives_exit_code_2(recipe: Recipe) -> None:
    assert check.run(recipe, as_json=True, min_speedup=1000.0) == 2


def test_the_table_names_break_even_and_cap(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    check.run(recipe, as_json=False, min_speedup=None)
    printed = capsys.readouterr().out
    assert "break-even alpha" in printed
    assert "cap of a perfect draft" in printed


@pytest.mark.parametrize("source", [{"target": 1.0}, {"fixed": 1.0}], ids=str)
def test_a_draft_is_measured_with_its_trimmed_head(
    recipe: Recipe, capsys: pytest.CaptureFixture[str], source: dict[str, float]
) -> None:
    """Alpha falls to what the target's mass on so few tokens allows; nothing is stored."""
    values = recipe.model_dump(mode="json")
    values["distill"]["source"] = source
    whole = Recipe.model_validate(values)
    values["pair"]["draft_head"] = {"keep": 5}
    trimmed = Recipe.model_validate(values)
    alphas, highest = [], []
    for plan in (whole, trimmed):
        check.run(plan, as_json=True, min_speedup=None)
        found = json.loads(capsys.readouterr().out)
        alphas.append(found["expectations"][0]["alpha"])
        highest.append(found["expectations"][0]["highest_alpha"])
    assert found["draft_head"]["keep"] == 5
    drawn = "responses drawn from the target for this check"
    counted_in = "the responses in the data, as training does" if "fixed" in source else drawn
    assert found["draft_head"]["counted_in"].endswith(counted_in)
    assert alphas[1] < 0.7 * alphas[0]
    # The five tokens have so little mass that the draft covers all of it.
    assert alphas[1] <= highest[1] + 1e-6
    assert highest[1] < highest[0] == 1.0
    assert not Path("data").exists()
    check.run(trimmed, as_json=False, min_speedup=None)
    printed = " ".join(capsys.readouterr().out.split())
    assert "a head that scores 5 of 300 tokens (pair.draft_head)" in printed
    assert "tokens in the draft's head" in printed
    assert "highest alpha, target's mass on the draft's tokens" in printed


def test_the_head_is_counted_in_the_targets_responses_that_are_there(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    values = recipe.model_dump(mode="json")
    values["distill"]["source"] = {"target": 1.0}
    values["pair"]["draft_head"] = {"keep": 50}
    plan = Recipe.model_validate(values)
    generate.generate(plan)
    capsys.readouterr()
    check.run(plan, as_json=True, min_speedup=None)
    found = json.loads(capsys.readouterr().out)
    assert "of the target's stored responses" in found["draft_head"]["counted_in"]


def test_an_endpoint_is_asked_and_what_stays_unknown_is_printed(
    recipe: Recipe, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = {"url": served.url, "model": served.model}
    values = recipe.model_dump(exclude={"pair", "distill"}, mode="json")
    plan = Recipe.model_validate(
        {
            **values,
            "pair": {"draft": str(NANO / "draft"), "endpoint": endpoint},
            "distill": {"divergence": "nll", "source": {"target": 1.0}},
        }
    )
    assert check.run(plan, as_json=False, min_speedup=None) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"answers as {served.model}" in printed
    assert "alpha, tau and speed-up are not known" in printed
    assert check.run(plan, as_json=True, min_speedup=None) == 0
    assert json.loads(capsys.readouterr().out)["seconds_per_answer"] > 0.0
    with pytest.raises(DistillSpecError, match="check --min-speedup"):
        check.run(plan, as_json=False, min_speedup=1.2)

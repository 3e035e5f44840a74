"""What is written of a target before training, and read by it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import Recipe
from distillspec.workflows import distill, generate
from tests.workflows.tiny_workplace import (
    only_run,
    recipe,
    written,
)


def test_target_responses_are_sampled_once_and_then_reused(workplace: Path) -> None:
    plan = recipe(source={"target": 1.0}, divergence="tvd")
    generate.generate(plan)
    stored = written("data/responses")
    assert stored
    distill.train(plan, None)
    assert written("data/responses") == stored


def test_distributions_are_kept_once_and_then_read(
    workplace: Path, kept: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    generate.generate(kept)
    stored = written("data/signals")
    reported = capsys.readouterr().out
    assert "k 16, 68 bytes per token" in reported
    assert "to make: 1 of 1 shards" in reported
    assert "distributions stored under data/signals/" in reported
    assert distill.run(kept, None) == 0
    assert written("data/signals") == stored
    assert "to make" not in capsys.readouterr().out
    with (only_run() / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))[1:]
    assert all(0.0 < float(row["train/alpha_at_most"]) <= 1.0 for row in rows)
    with (only_run() / "control/metrics.csv").open(newline="") as handle:
        assert not any(row["train/alpha_at_most"] for row in csv.DictReader(handle))
    assert "16 most probable tokens" in (only_run() / "draft/README.md").read_text()


def test_only_what_the_recipe_trains_on_is_generated(workplace: Path) -> None:
    generate.generate(recipe(source={"fixed": 1.0}, target_logits={"kind": "cached", "k": 4}))
    assert list(Path("data").iterdir()) == [Path("data/signals")]


def test_recipes_that_ask_the_same_of_a_target_share_its_answers(workplace: Path) -> None:
    """Whatever their names, objectives and other prompts are."""
    plan = recipe(source={"target": 1.0}, divergence="tvd")
    generate.generate(plan)
    stored = written("data/responses")
    few = plan.data.model_copy(update={"max_prompts": 7})
    steps = plan.distill.model_copy(update={"divergence": "jsd"})
    other = plan.model_copy(update={"name": "other", "data": few, "distill": steps})
    distill.train(other, None)
    assert written("data/responses") == stored


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.5}, {"target_logits": {"kind": "cached", "k": 17}}, {"on_prompts": True}],
    ids=str,
)
def test_distributions_of_another_recipe_are_kept_beside_those_that_are_there(
    workplace: Path, change: dict[str, object]
) -> None:
    plan: dict[str, object] = {
        "source": {"fixed": 1.0},
        "target_logits": {"kind": "cached", "k": 16},
    }
    generate.generate(recipe(**plan))
    stored = written("data/signals")
    generate.generate(recipe(**{**plan, **change}))
    both = written("data/signals")
    assert both.items() > stored.items()
    generate.generate(recipe(**plan))
    assert written("data/signals") == both


def test_distributions_of_another_target_are_not_taken(workplace: Path) -> None:
    plan = recipe(source={"fixed": 1.0}, target_logits={"kind": "cached", "k": 16})
    generate.generate(plan)
    stored = written("data/signals")
    shutil.rmtree("pair/target")
    shutil.copytree("pair/draft", "pair/target")
    generate.generate(plan)
    assert written("data/signals").keys() > stored.keys()


def test_what_is_kept_for_a_trimmed_head_is_generated_beforehand_and_read(
    workplace: Path, kept: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    values = kept.model_dump()
    values["pair"]["draft_head"] = {"keep": 60}
    values["evaluate"]["control"] = False
    plan = Recipe.model_validate(values)
    generate.generate(plan)
    stored = written("data/signals")
    generate.generate(kept)
    both = written("data/signals")
    assert len(list(Path("data/signals").iterdir())) == 2  # the whole head has another distribution
    distill.train(plan, None)
    assert written("data/signals") == both
    assert both.items() > stored.items()
    assert "the draft's head keeps 60 of 300 tokens" in capsys.readouterr().out
    with (only_run() / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))[1:]
    assert all(0.0 < float(row["train/alpha_at_most"]) <= 1.0 for row in rows)


def test_a_split_target_is_asked_for_no_responses(workplace: Path) -> None:
    plan = recipe(source={"fixed": 1.0})
    split = plan.hardware.model_copy(update={"shard_target": True})
    with pytest.raises(DistillSpecError, match="writes no responses"):
        generate.generate(plan.model_copy(update={"hardware": split}))
    assert not (workplace / "data").exists()

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from distillspec.assembly.pair import load_pair
from distillspec.assembly.target_data import target_responses
from distillspec.assembly.text import pair_prompts
from distillspec.assembly.trimmed_head import foreseen_head, kept_tokens, with_head
from distillspec.runtime.world import World
from tests.tiny_plan import recipe, written_plan


@pytest.fixture
def plan(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return written_plan(tiny_pair, tmp_path)


def test_the_most_frequent_tokens_and_all_ends_are_kept(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan))
    training = pair_prompts(pair).training
    responses = {training[0].key: (7, 7, 7, 9), training[1].key: (9, 11)}
    assert kept_tokens(pair, training, responses, 3).tokens == (0, 7, 9)


def test_a_draft_that_was_trained_with_a_trimmed_head_goes_on_with_it(
    plan: dict[str, Any], tiny_pair: Path, tmp_path: Path
) -> None:
    draft = Path(shutil.copytree(tiny_pair / "draft", tmp_path / "trained"))
    (draft / "hot_token_ids.json").write_text("[0, 5, 11]")
    named = {**plan["pair"], "draft": str(draft)}
    pair = load_pair(recipe(plan, pair={**named, "draft_head": {"keep": 3}}))
    training = pair_prompts(pair).training
    responses = {training[0].key: (7, 7, 7, 9), training[1].key: (9, 11)}
    kept = kept_tokens(pair, training, responses, 3)
    assert kept.tokens == (0, 5, 11)
    assert kept.share == pytest.approx(1 / 6)
    assert with_head(pair, training, responses).kept == (0, 5, 11)
    head = foreseen_head(pair, training)
    assert head is not None and head.pair.kept == (0, 5, 11)
    assert head.counted_in == "an earlier training (hot_token_ids.json)"
    # Another number of tokens is counted; without `draft_head` the head is whole.
    assert kept_tokens(pair, training, responses, 4).tokens == (0, 7, 9, 11)
    assert with_head(load_pair(recipe(plan, pair=named)), training, responses).kept is None


def test_a_recipe_without_a_trimmed_head_keeps_its_pair(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan))
    training = pair_prompts(pair).training
    assert with_head(pair, training, None) is pair
    assert foreseen_head(pair, training) is None


def test_before_the_target_was_asked_tokens_are_counted_in_the_data(plan: dict[str, Any]) -> None:
    trimmed = {**plan["pair"], "draft_head": {"keep": 20}}
    pair = load_pair(recipe(plan, pair=trimmed, distill={"source": {"fixed": 1.0}}))
    training = pair_prompts(pair).training
    head = foreseen_head(pair, training)
    assert head is not None and head.counted_in == "the responses in the data, as training does"
    assert head.pair.kept is not None and len(head.pair.kept) == 20
    assert with_head(pair, training, None).kept == head.pair.kept


def test_the_drawn_responses_are_those_that_training_will_store(plan: dict[str, Any]) -> None:
    """All 30 training prompts are drawn for, so both heads count the same text."""
    rows = [json.dumps({"prompt": f"def f{i}(x):"}) for i in range(40)]
    Path("rows.jsonl").write_text("\n".join(rows))
    trimmed = {**plan["pair"], "draft_head": {"keep": 20}}
    pair = load_pair(recipe(plan, pair=trimmed, distill={"source": {"target": 1.0}}))
    training = pair_prompts(pair).training
    assert len(training) <= 32
    drawn = foreseen_head(pair, training)
    assert not Path("data").exists()
    stored = target_responses(pair, training, World(1, 1, 0)).by_key
    counted = foreseen_head(pair, training)
    assert drawn is not None and counted is not None
    assert drawn.counted_in == f"{len(training)} responses drawn from the target for this check"
    assert counted.counted_in == f"{len(stored)} of the target's stored responses"
    assert drawn.pair.kept == counted.pair.kept == with_head(pair, training, stored).kept

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillspec.assembly.local_target import LocalTarget, ShardedTarget, check_writes_text
from distillspec.assembly.pair import ModelPair, load_pair
from distillspec.assembly.text import pair_prompts
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.runtime.world import World
from tests.tiny_plan import recipe, written_plan

ALONE = World(1, 1, 0)


@pytest.fixture
def plan(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return written_plan(tiny_pair, tmp_path)


@pytest.mark.parametrize("share", ["target", "fixed"])
def test_responses_are_settled_before_anything_is_cached(plan: dict[str, Any], share: str) -> None:
    signal = {"kind": "cached", "k": 8}
    pair = load_pair(recipe(plan, distill={"source": {share: 1.0}, "target_logits": signal}))
    sets = pair_prompts(pair)
    seen: list[dict[str, Tokens] | None] = []

    def settle(responses: dict[str, Tokens] | None) -> ModelPair:
        seen.append(responses)
        return pair.trimmed_to(tuple(range(40)))

    text = LocalTarget().training_text(pair, sets, ALONE, settle)
    assert len(seen) == 1 and (seen[0] is None) == (share == "fixed")
    assert text.responses == seen[0]
    assert text.cached is not None and text.cached.store.tokens > 0


def test_all_that_training_would_read_is_written_once(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan, distill={"source": {"target": 1.0}}))
    sets, target = pair_prompts(pair), LocalTarget()
    lines = target.fill_stores(pair, sets, ALONE)
    assert lines == target.fill_stores(pair, sets, ALONE)
    assert any(f"{len(sets.training)} responses stored" in line for line in lines)


def test_a_split_target_writes_no_text(plan: dict[str, Any]) -> None:
    check_writes_text(recipe(plan))
    hardware = {**plan["hardware"], "shard_target": True}
    split = recipe(plan, hardware=hardware, distill={"source": {"draft": 1.0}})
    with pytest.raises(DistillSpecError) as caught:
        check_writes_text(split)
    assert "hardware.shard_target" in caught.value.where
    assert not ShardedTarget().evaluates

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillspec.assembly import training as build
from distillspec.assembly.pair import load_pair
from distillspec.assembly.target_data import cached_target, target_responses
from distillspec.runtime.world import World
from tests.tiny_plan import recipe, written_plan

ALONE = World(1, 1, 0)


@pytest.fixture
def plan(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return written_plan(tiny_pair, tmp_path)


def test_responses_are_sampled_once(plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pair = load_pair(recipe(plan, distill={"source": {"target": 1.0}}))
    training = build.prompts(pair).training
    found = target_responses(pair, training, ALONE)
    assert set(found.by_key) == {prompt.key for prompt in training}
    assert found.seconds > 0.0

    def sample(*_: object) -> list[list[int]]:
        raise AssertionError("all of them are there")

    monkeypatch.setattr(build, "target_sampler", lambda _: sample)
    assert target_responses(pair, training, ALONE) == found


def test_the_size_of_a_cache_is_told_before_it_is_made(
    plan: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = {"source": {"fixed": 1.0}, "target_logits": {"kind": "cached", "k": 8}}
    pair = load_pair(recipe(plan, distill=fixed))
    training = build.prompts(pair).training
    assert cached_target(pair, training, None, ALONE) is not None
    assert "k 8, 36 bytes per token" in capsys.readouterr().out
    online = load_pair(recipe(plan, distill={"source": {"fixed": 1.0}}))
    assert cached_target(online, training, None, ALONE) is None

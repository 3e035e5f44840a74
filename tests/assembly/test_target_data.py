from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillspec.assembly import target_data
from distillspec.assembly.pair import load_pair
from distillspec.assembly.target_data import (
    cached_target,
    target_responses,
    target_sampler,
    top_k_store,
)
from distillspec.assembly.text import (
    pair_prompts,
)
from distillspec.runtime.world import World
from tests.tiny_plan import recipe, written_plan

ALONE = World(1, 1, 0)


@pytest.fixture
def plan(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return written_plan(tiny_pair, tmp_path)


def test_responses_are_sampled_once(plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pair = load_pair(recipe(plan, distill={"source": {"target": 1.0}}))
    training = pair_prompts(pair).training
    found = target_responses(pair, training, ALONE)
    assert set(found.by_key) == {prompt.key for prompt in training}
    assert found.seconds > 0.0

    def sample(*_: object) -> list[list[int]]:
        raise AssertionError("all of them are there")

    monkeypatch.setattr(target_data, "target_sampler", lambda _: sample)
    assert target_responses(pair, training, ALONE) == found


def test_the_size_of_a_cache_is_told_before_it_is_made(
    plan: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = {"source": {"fixed": 1.0}, "target_logits": {"kind": "cached", "k": 8}}
    pair = load_pair(recipe(plan, distill=fixed))
    training = pair_prompts(pair).training
    assert cached_target(pair, training, None, ALONE) is not None
    assert "k 8, 36 bytes per token" in capsys.readouterr().out
    online = load_pair(recipe(plan, distill={"source": {"fixed": 1.0}}))
    assert cached_target(online, training, None, ALONE) is None


def test_the_same_seed_draws_the_same_target_responses(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan))
    prompts = pair_prompts(pair).training[:3]
    sample = target_sampler(pair)
    assert sample(prompts, [5, 6, 7]) == sample(prompts, [5, 6, 7])
    assert sample(prompts, [5, 6, 7]) != sample(prompts, [8, 9, 10])


def test_a_rows_response_does_not_depend_on_the_rows_beside_it(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan))
    prompts, seeds = pair_prompts(pair).training[:4], [5, 6, 7, 8]
    sample = target_sampler(pair)
    together = sample(prompts, seeds)
    alone = [sample([one], [seed])[0] for one, seed in zip(prompts, seeds, strict=True)]
    assert together == alone
    assert sample(prompts[::-1], seeds[::-1]) == together[::-1]


def test_every_text_that_training_may_show_is_kept(plan: dict[str, Any]) -> None:
    source = {"fixed": 0.5, "target": 0.5}
    given = recipe(plan, distill={"source": source, "target_logits": {"kind": "cached", "k": 8}})
    pair = load_pair(given)
    training = pair_prompts(pair).training
    responses = {prompt.key: (5, 6, 7) for prompt in training}
    signal = given.distill.cached_logits
    assert signal is not None
    store = top_k_store(pair, signal, training, responses)
    assert store.folder.parent == Path("data/signals")
    assert store.texts == 2 * len(training)
    # A prompt has 11 or 12 characters; responses are cut at 4 tokens.
    assert store.tokens == (4 + 3) * len(training)
    assert store.bytes_per_token == signal.bytes_per_token(300)


def test_a_prompts_tokens_are_kept_too_where_they_are_learned_from(plan: dict[str, Any]) -> None:
    counts = []
    for on_prompts in (False, True):
        distill = {
            "source": {"fixed": 1.0},
            "on_prompts": on_prompts,
            "target_logits": {"kind": "cached", "k": 8, "store": f"signals-{on_prompts}"},
        }
        given = recipe(plan, distill=distill)
        pair = load_pair(given)
        training = pair_prompts(pair).training
        signal = given.distill.cached_logits
        assert signal is not None
        counts.append(top_k_store(pair, signal, training, None).tokens)
    assert counts[1] - counts[0] == sum(len(prompt.tokens) - 1 for prompt in training)

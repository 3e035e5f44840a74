"""What a job says and counts; its stages are run whole in test_stages.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.job import plan_in_words, tokens_trained_before
from distillspec.recipe.schema import Recipe
from distillspec.training.resume import LAST


def recipe(**distill: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "pair": {"target": "t", "draft": "d"},
            "data": {"source": {"kind": "jsonl", "path": "rows.jsonl"}},
            "distill": distill,
        }
    )


@pytest.mark.parametrize(
    ("distill", "words"),
    [
        (
            {},
            "forward kl on 100% draft responses, temperature 1, batches of 32, at most 1000 steps",
        ),
        (
            {"divergence": "jsd", "jsd_weight": 0.3, "source": {"fixed": 0.5, "target": 0.5}},
            "jsd[0.3] on 50% fixed, 50% target responses, temperature 1, batches of 32, "
            "at most 1000 steps",
        ),
        (
            {"on_prompts": True, "max_steps": 10**9, "max_minutes": 1.75, "batch_size": 8},
            "forward kl on 100% draft responses and their prompts, temperature 1, batches of 8, "
            "at most 1.75 minutes",
        ),
        (
            {"source": {"fixed": 1.0}, "signal": {"kind": "cached", "k": 8}},
            "forward kl against the target's 8 likeliest tokens and their rest on 100% fixed "
            "responses, temperature 1, batches of 32, at most 1000 steps",
        ),
    ],
)
def test_a_plan_is_one_line(distill: dict[str, object], words: str) -> None:
    assert plan_in_words(recipe(**distill)) == words


def test_tokens_of_earlier_starts_count_only_where_a_state_was_kept(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/response_tokens\n1,100.0\n1,\n2,50.0\n")
    assert tokens_trained_before(tmp_path) == 0
    (tmp_path / LAST).touch()
    assert tokens_trained_before(tmp_path) == 150

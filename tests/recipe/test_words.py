from __future__ import annotations

import pytest

from distillspec.recipe.schema import Recipe
from distillspec.recipe.words import plan_in_words


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
            "jsd[0.5] on 100% target responses, temperature 1, batches of 32, at most 1000 steps",
        ),
        (
            {"divergence": "jsd", "jsd_weight": 0.3, "source": {"fixed": 0.5, "target": 0.5}},
            "jsd[0.3] on 50% fixed, 50% target responses, temperature 1, batches of 32, "
            "at most 1000 steps",
        ),
        (
            {
                "source": {"draft": 0.5, "target": 0.5, "per": "batch"},
                "on_prompts": True,
                "max_steps": 10**9,
                "max_minutes": 1.75,
                "batch_size": 8,
            },
            "jsd[0.5] on 50% target, 50% draft by the batch responses and their prompts, "
            "temperature 1, batches of 8, at most 1.75 minutes",
        ),
        (
            {"source": {"fixed": 1.0}, "target_logits": {"kind": "cached", "k": 8}},
            "jsd[0.5] against the target's 8 most probable tokens and the rest on 100% fixed "
            "responses, temperature 1, batches of 32, at most 1000 steps",
        ),
    ],
)
def test_a_plan_is_one_line(distill: dict[str, object], words: str) -> None:
    assert plan_in_words(recipe(**distill)) == words

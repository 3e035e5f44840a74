from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from distillspec.recipe.prompt_plan import PromptsConfig

TOPICS = {"kind": "python-topics"}
ODD = {"kind": "adversarial"}


def test_what_a_suite_brings_is_told_by_the_key_it_stands_under() -> None:
    assert PromptsConfig().named == {}
    one = PromptsConfig.model_validate({"source": TOPICS})
    assert list(one.named) == ["prompts.source"]
    two = PromptsConfig.model_validate({"sources": {"prose": TOPICS, "odd": ODD}})
    assert list(two.named) == ["prompts.sources.prose", "prompts.sources.odd"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"source": TOPICS, "sources": {"odd": ODD}}, "prompts.source cannot"),
        ({"order": "alternating"}, "prompts.order"),
        ({"source": TOPICS, "order": "alternating"}, "prompts.order"),
        ({"max_tokens": 9}, "prompts.max_tokens"),
        ({"count": 1, "sources": {"prose": TOPICS, "odd": ODD}}, "cannot be of 2"),
        ({"count": 4, "texts": 3, "sources": {"prose": TOPICS}}, "leave out the last sources"),
        ({"sources": {"prose": {"kind": "prose"}}}, "prose"),
        ({"source": {**ODD, "shapes": []}}, "shapes"),
        ({"source": {**ODD, "shapes": ["short", "short"]}}, "lists a value twice"),
        ({"source": {**ODD, "tokens": 1}}, "tokens"),
        (
            {"source": {"kind": "jsonl", "path": "p", "merge": {"a": "b"}}},
            "category is missing",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PromptsConfig.model_validate(values)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.context import UNLIMITED, ContextLength, check_rows_fit, context_of
from distillspec.recipe.loading import load_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "nano-python.yaml"
SHORT, LONG = {"short_factor": [1.0], "long_factor": [4.0]}, {"max_position_embeddings": 512}
LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 32, **SHORT}


@pytest.mark.parametrize(
    ("config", "positions", "kind"),
    [
        ({}, UNLIMITED, ""),
        (LONG, 512, ""),
        ({"n_positions": 64}, 64, ""),
        ({"n_positions": 512, "relative_attention_num_buckets": 32}, UNLIMITED, ""),
        ({**LONG, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 512, ""),
        ({**LONG, "rope_parameters": {"rope_type": "default"}}, 512, ""),
        ({**LONG, "rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, 512, ""),
        ({**LONG, "rope_parameters": LONGROPE}, 32, "longrope"),
        # Phi-3's folders name the length outside of the RoPE, and the kind by its first name.
        ({**LONG, "original_max_position_embeddings": 40, "rope_scaling": {"type": "su", **SHORT}},
         40, "su"),
        ({**LONG, "rope_parameters": {"full_attention": LONGROPE,
                                      "sliding_attention": {"rope_type": "default"}}},
         32, "longrope"),
        ({"text_config": {**LONG, "rope_parameters": LONGROPE}}, 32, "longrope"),
        ({"max_position_embeddings": 16, "rope_parameters": LONGROPE}, 16, ""),
    ],
)  # fmt: skip
def test_a_context_ends_where_the_frequencies_change(
    config: dict[str, Any], positions: int, kind: str
) -> None:
    found = context_of(config)
    assert found.positions == positions
    assert (f"({kind})" in found.reason) if kind else not found.reason


def test_rows_that_may_cross_that_length_are_refused_with_the_reason() -> None:
    recipe = load_recipe(RECIPE, ["data.max_prompt_tokens=20", "data.max_response_tokens=13"])
    crossing = context_of({**LONG, "rope_parameters": LONGROPE})
    with pytest.raises(DistillSpecError, match=r"hold 32: its RoPE \(longrope\) changes") as caught:
        check_rows_fit(recipe, [ContextLength(512), crossing], "my.yaml")
    assert caught.value.where.startswith("my.yaml: data.max_prompt_tokens=20")
    data = recipe.data.model_copy(update={"max_response_tokens": 12})
    check_rows_fit(recipe.model_copy(update={"data": data}), [ContextLength(512), crossing])

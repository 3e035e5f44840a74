from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.comparison import ComparisonConfig
from distillspec.workflows.compare_variants import (
    check_shared,
    print_variants,
    source_in_words,
    variant_recipe,
)

RECIPE = {
    "pair": {"target": "target", "draft": "draft"},
    "data": {"source": {"kind": "jsonl", "path": "rows.jsonl"}},
    "distill": {"divergence": "tvd", "source": {"draft": 0.5, "target": 0.5}},
}


@pytest.fixture
def plan(tmp_path: Path) -> ComparisonConfig:
    path = tmp_path / "pair.yaml"
    path.write_text(json.dumps(RECIPE))  # which is YAML, too
    return comparison(path)


def comparison(path: Path | str, **variants: Any) -> ComparisonConfig:
    chosen = {"distill.select": {"reference": "variant:plain"}}
    return ComparisonConfig.model_validate(
        {
            "kind": "comparison",
            "name": "mine",
            "recipe": str(path),
            "minutes": 1,
            "seeds": [3, 4],
            "changes": {"distill.divergence": "forward_kl"},
            "variants": {"plain": {}, "chosen": chosen, **variants},
        }
    )


def test_a_variant_is_the_recipe_with_changes_its_seed_and_no_end_but_the_clocks(
    plan: ComparisonConfig, tmp_path: Path
) -> None:
    plain = variant_recipe(plan, "plain", 4, {})
    assert (plain.name, plain.seed, plain.distill.divergence) == ("mine", 4, "forward_kl")
    assert plain.distill.max_steps >= 10**9
    assert source_in_words(plain) == "50% target, 50% draft"
    made = {"plain": tmp_path / "made"}
    chosen = variant_recipe(plan, "chosen", 3, made)
    assert chosen.distill.select is not None
    assert chosen.distill.select.reference == str(tmp_path / "made")
    with pytest.raises(DistillSpecError, match="this recipe makes a model from nothing"):
        variant_recipe(comparison("recipes/nano-python-target.yaml"), "plain", 3, {})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pair.target": "another"}, "share one target"),
        ({"data.max_prompts": 8}, "on the same prompts"),
    ],
)
def test_variants_share_the_target_and_the_prompts(
    plan: ComparisonConfig, changes: dict[str, Any], says: str
) -> None:
    base = variant_recipe(plan, "plain", 3, {})
    check_shared(base, variant_recipe(plan, "chosen", 3, {}), "chosen")
    other = comparison(plan.recipe, other=changes)
    with pytest.raises(DistillSpecError, match=says):
        check_shared(base, variant_recipe(other, "other", 3, {}), "other")


def test_a_look_says_what_is_missing_before_anything_is_trained(plan: ComparisonConfig) -> None:
    with pytest.raises(DistillSpecError, match="no such model folder: 'target'"):
        print_variants(plan)

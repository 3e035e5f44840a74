"""The recipe of each variant of a comparison, and what a variant may not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distillspec.errors import DistillSpecError
from distillspec.recipe.comparison import OF_VARIANT, ComparisonConfig
from distillspec.recipe.dry_run import plan as check_plan
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.runtime.terminal import Terminal

_ENDLESS = 1_000_000_000  # steps; max_minutes ends a run

console = Terminal(soft_wrap=True)


def print_variants(comparison: ComparisonConfig) -> int:
    """Check the recipe of each variant, and print what `compare` would train."""
    for variant, recipe in checked_variants(comparison).items():
        console.print(f"{variant:<20}  {recipe.distill.loss_in_words}: {source_in_words(recipe)}")
    count = len(comparison.variants) * len(comparison.seeds)
    minutes = count * comparison.minutes
    finals = comparison.finals
    if finals is not None:
        count += finals.count * len(finals.seeds)
        minutes += finals.count * len(finals.seeds) * finals.minutes
    console.print(f"{count} runs, {minutes:g} minutes of training at most")
    return 0


def checked_variants(comparison: ComparisonConfig) -> dict[str, Recipe]:
    """The recipe of each variant with the first seed, checked before any training.

    Raises:
        DistillSpecError: A variant changes what all variants must share, or cannot be trained.
    """
    plain = variant_recipe(comparison, comparison.against, comparison.seeds[0], {})
    # The drafts of variants do not exist yet. A folder of the same model kind stands in for them.
    stand_in = plain.pair.draft if isinstance(plain.pair.draft, str) else plain.pair.target_weights
    recipes = {}
    for variant in comparison.variants:
        unmade = dict.fromkeys(comparison.needs(variant), Path(stand_in))
        recipe = variant_recipe(comparison, variant, comparison.seeds[0], unmade)
        check_shared(plain, recipe, variant)
        check_plan(recipe, comparison.recipe)
        recipes[variant] = recipe
    return recipes


def variant_recipe(
    comparison: ComparisonConfig, variant: str, seed: int, drafts: dict[str, Path]
) -> Recipe:
    """The recipe of a run.

    Args:
        comparison: Names recipe and changes.
        variant: Its name.
        seed: Of the run.
        drafts: Folders of the variants that this one reads; a missing variant stays a name.

    Raises:
        DistillSpecError: The recipe is not of kind distill, or a change cannot be made.
    """
    changes = {
        **comparison.changes_of(variant),
        "name": comparison.name,
        "seed": seed,
        "distill.max_steps": _ENDLESS,
    }
    if not isinstance(load_recipe(comparison.recipe), Recipe):
        raise DistillSpecError(
            "a comparison needs a distillation, and this recipe makes a model from nothing",
            where=comparison.recipe,
            fix="name a recipe of kind distill",
        )
    # JSON is YAML, so each change is an override as on the command line.
    texts = [f"{key}={json.dumps(_placed(value, drafts))}" for key, value in changes.items()]
    recipe = load_recipe(comparison.recipe, texts)
    assert isinstance(recipe, Recipe)
    return recipe


def check_shared(base: Recipe, recipe: Recipe, variant: str) -> None:
    """Check that a variant has the target and the data of the recipe.

    Raises:
        DistillSpecError: It changes one of them.
    """
    for key in ("target", "endpoint", "target_revision"):
        if getattr(recipe.pair, key) != getattr(base.pair, key):
            raise DistillSpecError(
                f"variant {variant!r} changes pair.{key}, and all variants share one target",
                where="variants of the comparison",
                fix=f"remove pair.{key} from the variant, or put it into another comparison",
            )
    if recipe.data != base.data:
        raise DistillSpecError(
            f"variant {variant!r} changes data, and all variants train on the same prompts",
            where="variants of the comparison",
            fix="put it under changes, which apply to every run, or into another comparison",
        )


def source_in_words(recipe: Recipe) -> str:
    """The shares of the training text, such as "50% fixed, 50% draft"."""
    return ", ".join(f"{share:.0%} {origin}" for origin, share in recipe.distill.origins.items())


def _placed(value: Any, drafts: dict[str, Path]) -> Any:
    """The value with the names of variants replaced by the folders of their drafts."""
    if isinstance(value, dict):
        return {key: _placed(entry, drafts) for key, entry in value.items()}
    if isinstance(value, str) and value.startswith(OF_VARIANT):
        name = value.removeprefix(OF_VARIANT)
        return str(drafts[name]) if name in drafts else value
    return value

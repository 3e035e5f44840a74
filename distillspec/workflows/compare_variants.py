"""The recipe of each variant of a comparison: what it changes, and what it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distillspec.errors import DistillSpecError
from distillspec.recipe.comparison import OF_VARIANT, ComparisonConfig
from distillspec.recipe.dry_run import plan as told
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.runtime.terminal import Terminal

_ENDLESS = 1_000_000_000  # steps: the clock ends a run

console = Terminal(soft_wrap=True)


def look(comparison: ComparisonConfig) -> int:
    """Check every variant's recipe, say what would happen, and stop; 0."""
    for variant, recipe in checked(comparison).items():
        console.print(f"{variant:<20}  {recipe.distill.loss_in_words}: {source_in_words(recipe)}")
    count = len(comparison.variants) * len(comparison.seeds)
    minutes = count * comparison.minutes
    finals = comparison.finals
    if finals is not None:
        count += finals.count * len(finals.seeds)
        minutes += finals.count * len(finals.seeds) * finals.minutes
    console.print(f"{count} runs, {minutes:g} minutes of training at most")
    return 0


def checked(comparison: ComparisonConfig) -> dict[str, Recipe]:
    """Every variant's recipe with the first seed, checked before any of them is trained."""
    plain = variant_recipe(comparison, comparison.against, comparison.seeds[0], {})
    # A folder like the one that a variant will leave: what is made of the target has its kind.
    like = plain.pair.draft if isinstance(plain.pair.draft, str) else plain.pair.target_weights
    found = {}
    for variant in comparison.variants:
        unmade = dict.fromkeys(comparison.needs(variant), Path(like))
        recipe = variant_recipe(comparison, variant, comparison.seeds[0], unmade)
        check_shared(plain, recipe, variant)
        told(recipe, comparison.recipe)
        found[variant] = recipe
    return found


def variant_recipe(
    comparison: ComparisonConfig, variant: str, seed: int, drafts: dict[str, Path]
) -> Recipe:
    """The recipe of one run. drafts: of variants that it reads; a missing one stays a name."""
    changes = {
        **comparison.changes_of(variant),
        "name": comparison.name,
        "seed": seed,
        "distill.max_steps": _ENDLESS,
    }
    if not isinstance(load_recipe(comparison.recipe), Recipe):
        raise DistillSpecError(
            "a comparison is of distillations, and this recipe makes a model from nothing",
            where=comparison.recipe,
            fix="name a recipe of kind distill",
        )
    texts = [f"{key}={json.dumps(_placed(value, drafts))}" for key, value in changes.items()]
    recipe = load_recipe(comparison.recipe, texts)
    assert isinstance(recipe, Recipe)
    return recipe


def check_shared(base: Recipe, recipe: Recipe, variant: str) -> None:
    """All variants have the same prompts, and are measured on what one target says."""
    for key in ("target", "endpoint", "target_revision"):
        if getattr(recipe.pair, key) != getattr(base.pair, key):
            raise DistillSpecError(
                f"variant {variant!r} changes pair.{key}, and a comparison has one target",
                where="variants of the comparison",
                fix=f"leave pair.{key} to the recipe, or make a comparison of its own",
            )
    if recipe.data != base.data:
        raise DistillSpecError(
            f"variant {variant!r} changes data, and a comparison trains all on the same prompts",
            where="variants of the comparison",
            fix="put it under changes, which are of every run, or make a comparison of its own",
        )


def source_in_words(recipe: Recipe) -> str:
    return ", ".join(f"{share:.0%} {origin}" for origin, share in recipe.distill.source.of.items())


def _placed(value: Any, drafts: dict[str, Path]) -> Any:
    """The value with variants' names replaced by the folders of their drafts."""
    if isinstance(value, dict):
        return {key: _placed(one, drafts) for key, one in value.items()}
    if isinstance(value, str) and value.startswith(OF_VARIANT):
        name = value.removeprefix(OF_VARIANT)
        return str(drafts[name]) if name in drafts else value
    return value

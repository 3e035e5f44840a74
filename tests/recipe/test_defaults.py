from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distillspec.recipe.defaults import CLOSE_ALPHA, with_cached_logits, with_defaults
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe

DATA = {"source": {"kind": "jsonl", "path": "p"}}
GIVEN = {"target": "t", "draft": "d"}
ENDPOINT = {"endpoint": {"url": "http://localhost:1/v1", "model": "m"}, "draft": "d"}
MADE = {"target": "t", "draft": {"kind": "pruned", "layers": 1}}
TARGET, DRAFT, OWN = {"target": 1.0}, {"draft": 1.0}, {"fixed": 1.0}
TURNS = {"draft": 0.5, "target": 0.5, "per": "batch"}
CACHED = {"target_logits": {"kind": "cached"}}
SPLIT = {"shard_target": True}
KL_THEN_JSD = ("forward_kl", "jsd", "jsd")


@pytest.mark.parametrize(
    ("pair", "distill", "hardware", "losses", "source"),
    [
        (GIVEN, {}, {}, KL_THEN_JSD, TARGET),
        (MADE, {}, {}, KL_THEN_JSD, TARGET),
        (GIVEN | {"draft_head": {"keep": 9}}, {}, {}, KL_THEN_JSD, TARGET),
        (GIVEN | {"tokenizers": "cross-tokenizer"}, {}, {}, ("forward_kl", "jsd"), TARGET),
        (GIVEN, CACHED, {}, KL_THEN_JSD, TARGET),
        (GIVEN, {"packing": 1024}, {}, KL_THEN_JSD, TARGET),
        (GIVEN, {"on_prompts": True, "max_steps": 10}, {}, KL_THEN_JSD, TARGET),
        (GIVEN, {"on_prompts": True, "max_steps": 9}, {}, ("jsd",), TARGET),
        (ENDPOINT, {}, {}, ("nll",), TARGET),
        (GIVEN, {}, SPLIT, ("jsd",), DRAFT),
        (GIVEN, {"divergence": "nll"}, {}, ("nll",), TARGET),
        (GIVEN, {"divergence": "nll"}, SPLIT, ("nll",), OWN),
        (GIVEN, {"divergence": "tvd_plus"}, {}, ("tvd_plus",), DRAFT),
        (GIVEN, {"divergence": "mix", "mix": {"jsd": 1.0, "nll": 1.0}}, {}, ("mix",), TARGET),
        (GIVEN, CACHED | {"divergence": "tvd"}, {}, ("tvd",), TARGET),
        (GIVEN, {"divergence": "block_efficiency", "block_form": "drawn"}, {},
         ("block_efficiency",), TARGET),
        (GIVEN, {"select": {"keep": 0.5, "reference": "r"}}, {}, ("jsd",), TARGET),
        (GIVEN, {"source": OWN}, {}, ("jsd",), OWN),
        (GIVEN, {"jsd_weight": 0.1}, {}, ("jsd",), TARGET),
        (GIVEN, {"schedule": []}, {}, ("jsd",), TARGET),
    ],
)  # fmt: skip
def test_a_recipe_that_names_neither_loss_nor_text_is_valid_for_every_kind_of_pair(
    pair: dict[str, Any],
    distill: dict[str, Any],
    hardware: dict[str, Any],
    losses: tuple[str, ...],
    source: dict[str, float],
) -> None:
    values = {"pair": pair, "data": DATA, "distill": distill, "hardware": hardware}
    recipe = Recipe.model_validate(with_defaults(values))
    assert tuple(phase.divergence for phase in recipe.distill.phases) == losses
    assert recipe.distill.phases[0].source.of == recipe.distill.source.of == source
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_a_draft_that_is_close_before_training_begins_with_jsd_on_text_of_both() -> None:
    distill = Recipe.model_validate(with_defaults({"pair": GIVEN, "data": DATA})).distill
    wanted = [phase.until_alpha for phase in distill.schedule]
    assert wanted == [CLOSE_ALPHA, CLOSE_ALPHA, None]
    assert distill.phases[-1].source.model_dump(exclude_defaults=True) == TURNS
    assert distill.origins == pytest.approx({"target": 0.95, "draft": 0.05})


@pytest.mark.parametrize(
    ("distill", "data", "is_cached"),
    [
        ({}, {}, True),
        ({"max_steps": 211}, {}, True),
        ({"max_steps": 210}, {}, False),
        ({"divergence": "jsd", "max_steps": 200}, {}, True),
        ({"divergence": "jsd", "max_steps": 199}, {}, False),
        ({}, {"max_prompts": None}, False),
        ({"divergence": "tvd"}, {}, True),
        ({"divergence": "reverse_kl"}, {}, False),
        ({"divergence": "nll"}, {}, False),
        ({"divergence": "mix", "mix": {"jsd": 0.5, "nll": 0.5}}, {}, False),
        ({"source": OWN}, {}, True),
        ({"source": DRAFT}, {}, False),
        ({"source": TURNS, "max_steps": 400}, {}, True),
        ({"source": TURNS, "max_steps": 399}, {}, False),
        ({"source": TURNS | {"per": "sequence"}}, {}, False),
        ({"schedule": [{"share": 0.5, "source": TARGET},
                       {"share": 0.5, "source": DRAFT | {"per": "batch"}}]}, {}, False),
        ({"target_logits": {"kind": "online"}}, {}, False),
        ({"select": {"keep": 0.5, "reference": "r"}}, {}, False),
    ],
)  # fmt: skip
def test_logits_are_cached_where_each_stored_text_is_read_twice_and_the_loss_allows_it(
    distill: dict[str, Any], data: dict[str, Any], is_cached: bool
) -> None:
    values = {
        "pair": GIVEN,
        "data": DATA | {"max_prompts": 800} | data,
        "distill": {"batch_size": 8, "max_steps": 1000} | distill,
    }
    recipe = with_cached_logits(Recipe.model_validate(with_defaults(values)))
    assert (recipe.distill.cached_logits is not None) == is_cached
    # The resolved recipe loads, and stays as it is.
    again = Recipe.model_validate(recipe.model_dump(mode="json"))
    assert again == recipe == with_cached_logits(again)


def test_what_a_recipe_gives_is_never_changed() -> None:
    given = {"divergence": "forward_kl", "source": {"draft": 1.0}}
    values = {"pair": ENDPOINT, "data": DATA, "distill": given}
    assert with_defaults(values) is values
    with pytest.raises(ValidationError, match=r"pair\.endpoint"):
        Recipe.model_validate(values)


def test_overrides_count_as_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("pair: {target: t, draft: d}\ndata: {source: {kind: jsonl, path: p}}\n")
    plain = load_recipe(path)
    assert isinstance(plain, Recipe) and plain.distill.schedule
    texts = load_recipe(path, ["distill.divergence=nll"])
    assert isinstance(texts, Recipe) and not texts.distill.schedule
    sharded = load_recipe(path, ["hardware.shard_target=true"])
    assert isinstance(sharded, Recipe) and sharded.distill.source.of == DRAFT


@pytest.mark.parametrize("name", ["pair", "distill", "hardware"])
@pytest.mark.parametrize("value", [None, 3, "text", [1], {"target_logits": 4, "mix": "x"}])
def test_sections_of_any_form_reach_the_check_that_names_them(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=name):
        Recipe.model_validate(with_defaults({"pair": GIVEN, "data": DATA, name: value}))


@pytest.mark.parametrize("divergence", [{}, [1], None, {"mix": 1}])
def test_a_loss_of_another_type_is_left_to_the_schema(divergence: Any) -> None:
    values = {"pair": GIVEN, "data": DATA, "distill": {"divergence": divergence}}
    with pytest.raises(ValidationError):
        Recipe.model_validate(with_defaults(values))

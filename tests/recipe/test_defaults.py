from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distillspec.recipe.defaults import with_defaults
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe

DATA = {"source": {"kind": "jsonl", "path": "p"}}
GIVEN = {"target": "t", "draft": "d"}
ENDPOINT = {"endpoint": {"url": "http://localhost:1/v1", "model": "m"}, "draft": "d"}
MADE = {"target": "t", "draft": {"kind": "pruned", "layers": 1}}
BEST = {"draft": 0.5, "target": 0.5}
TARGET, DRAFT, OWN = {"target": 1.0}, {"draft": 1.0}, {"fixed": 1.0}
CACHED = {"target_logits": {"kind": "cached"}}
SPLIT = {"shard_target": True}


@pytest.mark.parametrize(
    ("pair", "distill", "hardware", "divergence", "source"),
    [
        (GIVEN, {}, {}, "jsd", BEST),
        (MADE, {}, {}, "jsd", BEST),
        (GIVEN | {"draft_head": {"keep": 9}}, {}, {}, "jsd", BEST),
        (GIVEN | {"tokenizers": "cross-tokenizer"}, {}, {}, "jsd", TARGET),
        (ENDPOINT, {}, {}, "nll", TARGET),
        (GIVEN, {}, SPLIT, "jsd", DRAFT),
        (GIVEN, {"divergence": "nll"}, {}, "nll", TARGET),
        (GIVEN, {"divergence": "nll"}, SPLIT, "nll", OWN),
        (GIVEN, {"divergence": "tvd_plus"}, {}, "tvd_plus", DRAFT),
        (GIVEN, {"divergence": "mix", "mix": {"jsd": 1.0, "nll": 1.0}}, {}, "mix", TARGET),
        (GIVEN, CACHED, {}, "jsd", TARGET),
        (GIVEN, CACHED | {"divergence": "tvd"}, {}, "tvd", TARGET),
        (GIVEN, {"divergence": "block_efficiency"}, {}, "block_efficiency", BEST),
        (GIVEN, {"divergence": "block_efficiency", "block_form": "drawn"}, {},
         "block_efficiency", TARGET),
        (GIVEN, {"on_prompts": True, "max_steps": 3}, {}, "jsd", BEST),
        (GIVEN, {"select": {"keep": 0.5, "reference": "r"}}, {}, "jsd", BEST),
        (GIVEN, {"packing": 1024}, {}, "jsd", BEST),
        (GIVEN, {"source": OWN}, {}, "jsd", OWN),
    ],
)  # fmt: skip
def test_a_recipe_that_names_neither_loss_nor_text_is_valid_for_every_kind_of_pair(
    pair: dict[str, Any],
    distill: dict[str, Any],
    hardware: dict[str, Any],
    divergence: str,
    source: dict[str, float],
) -> None:
    values = {"pair": pair, "data": DATA, "distill": distill, "hardware": hardware}
    recipe = Recipe.model_validate(with_defaults(values))
    assert recipe.distill.divergence == divergence
    assert recipe.distill.source.of == source
    assert recipe.distill.source.per == ("batch" if source == BEST else "sequence")
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


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
    assert isinstance(plain, Recipe) and plain.distill.source.of == BEST
    texts = load_recipe(path, ["distill.divergence=nll"])
    assert isinstance(texts, Recipe) and texts.distill.source.of == TARGET
    bridged = load_recipe(path, ["pair.tokenizers=cross-tokenizer"])
    assert isinstance(bridged, Recipe) and bridged.distill.source.of == TARGET


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

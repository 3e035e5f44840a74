"""Training of variants on the tiny pair: budgets, resumed runs, drafts of other variants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_tokenizer
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.workflows import compare, compare_train, generate
from distillspec.workflows.compare_variants import print_variants
from tests.models.two_tokenizers import save_other_draft
from tests.workflows.tiny_comparison import FOLDER, ONCE, RECIPE, comparison, measured, workplace

__all__ = ["workplace"]

MADE = {"kind": "pruned", "layers": 1}


def test_the_time_that_stored_text_took_is_taken_from_the_training(workplace: Path) -> None:
    plan = comparison(
        counts_stored_text=True,
        minutes=1e-6,
        variants={"sampled": {"distill.source": {"target": 1.0}}},
    )
    with pytest.raises(DistillSpecError, match="nothing is left for training"):
        compare.run(plan)


def test_stored_responses_are_not_sampled_again_and_their_seconds_count(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load_recipe("pair.yaml", ["distill.source={target: 1.0}"])
    assert isinstance(made, Recipe)
    generate.generate(made)
    (clock,) = Path("data/responses").glob("*/seconds-*.jsonl")
    rows = [json.loads(line) for line in clock.read_text().splitlines()]
    clock.write_text("".join(json.dumps({**row, "seconds": 100.0}) + "\n" for row in rows))

    def sample(*_: object) -> list[list[int]]:
        raise AssertionError("all of them are there")

    monkeypatch.setattr("distillspec.assembly.target_data.target_sampler", lambda _: sample)
    variants = {"sampled": {"distill.source": {"target": 1.0}}}
    plan = comparison(counts_stored_text=True, minutes=1.0, variants=variants)
    with pytest.raises(DistillSpecError, match="nothing is left for training") as caught:
        compare.run(plan)
    count = sum(len(row["names"]) for row in rows)
    assert f"took {100.0 * count / 60.0:.1f} of the 1 minutes" in caught.value.what


def test_of_stored_text_that_all_read_only_the_logits_may_count(workplace: Path) -> None:
    cached = ["distill.source={target: 1.0}", "distill.target_logits={kind: cached, k: 4}"]
    made = load_recipe("pair.yaml", cached)
    assert isinstance(made, Recipe)
    generate.generate(made)

    def take(store: str, seconds: float) -> None:
        for clock in Path("data", store).glob("*/seconds-*.jsonl"):
            rows = [json.loads(line) for line in clock.read_text().splitlines()]
            clock.write_text(
                "".join(json.dumps({**row, "seconds": seconds}) + "\n" for row in rows)
            )

    logits = {"distill.target_logits": {"kind": "cached", "k": 4}}
    plan = comparison(
        **ONCE,
        counts_stored_text="logits",
        variants={"kept": {"distill.source": {"target": 1.0}, **logits}},
    )
    take("responses", 100.0)
    take("signals", 0.0)
    compare.run(plan)  # sampling took far more than the run's minutes, and does not count
    take("signals", 100.0)
    with pytest.raises(DistillSpecError, match="nothing is left for training"):
        compare.run(plan.model_copy(update={"name": "again"}))


def test_runs_of_another_recipe_are_refused(workplace: Path) -> None:
    plan = {"seeds": (0,), "finals": None, "elsewhere": {}}
    only = {"kl": {"distill.divergence": "forward_kl"}}
    compare.run(comparison(**plan, variants=only))
    changed = {"kl": {"distill.divergence": "tvd"}}
    with pytest.raises(DistillSpecError, match="made by another recipe"):
        compare.run(comparison(**plan, variants=changed))
    path = FOLDER / "first/kl/seed-0/measured.json"
    path.write_text("{}")
    with pytest.raises(DistillSpecError, match="cannot be read: 'readings' is missing"):
        compare.run(comparison(**plan, variants=only))


def test_what_was_measured_on_other_texts_is_measured_again_and_not_trained_again(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"seeds": (0,), "finals": None, "elsewhere": {}}
    only = {"kl": {"distill.divergence": "forward_kl", "lora": {"rank": 2}}}
    compare.run(comparison(**plan, variants=only))
    path = FOLDER / "first/kl/seed-0/measured.json"
    before = json.loads(path.read_text())

    def fit(*_: Any, **__: Any) -> Any:
        raise AssertionError("it is trained already")

    monkeypatch.setattr(compare_train, "train_draft", fit)
    compare.run(comparison(**plan, variants=only))
    assert json.loads(path.read_text()) == before
    elsewhere = {"noise": {"kind": "adversarial", "shapes": ("random",), "tokens": 8}}
    for changes in ({"gamma": 3}, {"texts": 3}, {"elsewhere": elsewhere}):
        compare.run(comparison(**{**plan, "variants": only, **changes}))
        after = json.loads(path.read_text())
        assert after["cost"] == before["cost"]
        assert after["readings"] != before["readings"]


def test_variants_may_begin_with_another_draft(workplace: Path) -> None:
    variants = {
        "given": {},
        "made": {"pair.draft": MADE},
        "further": {"pair.draft": "variant:made", "lora": {"rank": 2}},
        "trimmed": {"pair.draft": MADE, "pair.draft_head": {"keep": 60}},
        "chosen": {
            "pair.draft_head": {"keep": 60},
            "distill.select": {"keep": 0.5, "reference": "variant:trimmed"},
            "distill.target_logits": {"kind": "cached", "k": 8},
        },
    }
    fixed = {"distill.source": {"fixed": 1.0}}
    plan = comparison(**ONCE, changes=fixed, variants=variants)
    assert print_variants(plan) == 0
    assert compare.run(plan) == 0
    assert len(measured()) == len(variants)
    config = json.loads((FOLDER / "first/made/seed-0/draft/config.json").read_text())
    target = json.loads(Path("pair/target/config.json").read_text())
    assert config == config | {"num_hidden_layers": 1, "hidden_size": target["hidden_size"]}
    kept = json.loads((FOLDER / "first/trimmed/seed-0/draft/hot_token_ids.json").read_text())
    assert len(kept) == 60


def test_a_comparison_may_begin_with_a_draft_that_is_made(workplace: Path) -> None:
    Path("pair.yaml").write_text(RECIPE.replace("pair/draft", "{kind: pruned, layers: [1]}"))
    variants = {
        "kl": {"distill.source": {"fixed": 1.0}},
        "chosen": {
            "distill.source": {"fixed": 1.0},
            "distill.select": {"keep": 0.5, "reference": "variant:kl"},
        },
        "further": {"pair.draft": "variant:kl"},
    }
    plan = comparison(**ONCE | {"seeds": (0, 1)}, variants=variants)
    assert print_variants(plan) == 0
    assert compare.run(plan) == 0
    assert len(measured()) == 6
    before = measured()
    assert compare.run(plan) == 0
    assert measured() == before


def test_variants_may_bridge_two_tokenizers(workplace: Path) -> None:
    tokenizer = save_other_draft(Path("pair/other"))
    bridged = {"pair.tokenizers": "cross-tokenizer", "distill.source": {"fixed": 1.0}}
    variants = {
        "equal": {},
        "cross-tokenizer": {"pair.draft": "pair/other", **bridged},
        "further": {"pair.draft": "variant:cross-tokenizer", **bridged},
    }
    plan = comparison(**ONCE, variants=variants)
    assert compare.run(plan) == 0
    kept = FOLDER / "first/cross-tokenizer/seed-0/draft"
    assert load_tokenizer(str(kept)).get_vocab() == tokenizer.get_vocab()
    assert json.loads((kept / "config.json").read_text())["vocab_size"] == 310
    value = json.loads((FOLDER / "first/further/seed-0/measured.json").read_text())
    assert value["readings"].keys() == {"held-out"}

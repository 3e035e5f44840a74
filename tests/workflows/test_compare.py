"""A comparison on the tiny pair: real trainings of a moment each, interrupted and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from distillspec.errors import DistillSpecError
from distillspec.measure.summary.variants import VariantCost
from distillspec.models.loading.load import load_tokenizer
from distillspec.recipe.comparison import ComparisonConfig
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.runtime.world import World
from distillspec.workflows import compare, generate
from distillspec.workflows.compare_variants import look
from tests.models.two_tokenizers import save_other_draft

RECIPE = """\
pair: {target: pair/target, draft: pair/draft}
data:
  source: {kind: jsonl, path: rows.jsonl}
  held_out_percent: 25.0
  max_prompt_tokens: 64
  max_response_tokens: 6
distill:
  divergence: forward_kl
  source: {draft: 1.0}
  batch_size: 4
  probe: {every_steps: 20, prompts: 2, gamma: 2, max_new_tokens: 4}
optimizer: {learning_rate: 1.0e-2, warmup_steps: 1}
hardware: {device: cpu, precision: float32}
evaluate: {suite: suite.yaml}
"""
FOLDER = Path("checkpoints/runs/compare/tiny")


@pytest.fixture
def workplace(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_pair, tmp_path / "pair")
    rows = ({"prompt": f"def f{i}(x):", "response": f"\n    return x + {i}"} for i in range(40))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "pair.yaml").write_text(RECIPE)
    (tmp_path / "suite.yaml").write_text("prompts: {count: 2}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def comparison(**changes: Any) -> ComparisonConfig:
    return ComparisonConfig.model_validate(
        {
            "kind": "comparison",
            "name": "tiny",
            "recipe": "pair.yaml",
            "minutes": 0.01,
            "seeds": (0, 1),
            "texts": 4,
            "max_new_tokens": 8,
            "gamma": 2,
            "counts_stored_text": False,
            "variants": {
                "kl": {"distill.divergence": "forward_kl"},
                "sampled": {"distill.source": {"target": 1.0}},
                "chosen": {"distill.select": {"keep": 0.5, "reference": "variant:kl"}},
            },
            "finals": {"count": 1, "minutes": 0.012, "seeds": (3,)},
            "elsewhere": {"noise": {"kind": "adversarial", "shapes": ("random",), "tokens": 8}},
            **changes,
        }
    )


def measured() -> dict[str, int]:
    paths = sorted(FOLDER.glob("*/*/seed-*/measured.json"))
    return {str(path.relative_to(FOLDER).parent): path.stat().st_mtime_ns for path in paths}


def test_variants_are_trained_measured_and_told_and_what_is_there_is_kept(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = compare.fit
    count = 0

    def cut_off(*args: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return trained(*args, **settings)

    monkeypatch.setattr(compare, "fit", cut_off)
    with pytest.raises(KeyboardInterrupt):
        compare.run(comparison())
    before = measured()
    assert len(before) == 4
    monkeypatch.setattr(compare, "fit", trained)
    assert compare.run(comparison()) == 0
    after = measured()
    assert {name: after[name] for name in before} == before
    assert {name for name in after if name.startswith("first")} == {
        f"first/{variant}/seed-{seed}" for variant in ("kl", "sampled", "chosen") for seed in (0, 1)
    }
    finals = {name.split("/")[1] for name in after if name.startswith("finals")}
    assert "kl" in finals and len(finals) <= 2
    value = json.loads((FOLDER / "first/sampled/seed-1/measured.json").read_text())
    assert set(value["readings"]) == {"held-out", "noise"}
    cost = VariantCost(**value["cost"])
    assert cost.steps > 0 and cost.text_seconds > 0.0
    assert sum(cost.seconds[phase] for phase in ("rollout", "target", "update")) < 60.0
    text = (FOLDER / "first.md").read_text()
    assert text.count("| undistilled |") == 2  # on both kinds of prompts
    assert "| chosen |" in text and "against kl" in text
    printed = capsys.readouterr().out
    assert (
        "first: held-out prompts, 4 texts of 4 documents, T = 1, gamma 2; 0.01 minutes" in printed
    )
    # Everything is there, if by a version that knew less to choose: nothing is trained.
    for path in FOLDER.rglob("recipe.yaml"):
        text = path.read_text()
        assert "  jsd_weight: 0.5\n" in text
        path.write_text(text.replace("  jsd_weight: 0.5\n", ""))
    monkeypatch.setattr(compare, "fit", None)
    assert compare.run(comparison()) == 0
    assert all("  jsd_weight: 0.5\n" in path.read_text() for path in FOLDER.rglob("recipe.yaml"))
    path.write_text(path.read_text() + "of_another_version: 1\n")
    with pytest.raises(DistillSpecError, match="made by another recipe"):
        compare.run(comparison())
    path.write_bytes(b"\xff")
    with pytest.raises(DistillSpecError, match="made by another recipe"):
        compare.run(comparison())


def test_the_time_that_stored_text_took_is_taken_from_the_training(workplace: Path) -> None:
    plan = comparison(
        counts_stored_text=True,
        minutes=1e-6,
        variants={"sampled": {"distill.source": {"target": 1.0}}},
    )
    with pytest.raises(DistillSpecError, match="nothing is left for training"):
        compare.run(plan)


def test_responses_that_generate_has_stored_are_not_sampled_again_and_what_they_took_counts(
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


def test_a_variant_that_may_not_be_is_refused_before_any_is_trained(workplace: Path) -> None:
    variants = {"kl": {}, "less": {"data.max_prompt_tokens": 8}}
    with pytest.raises(DistillSpecError, match="'less' changes data"):
        compare.run(comparison(variants=variants))
    assert not FOLDER.exists()


def test_runs_of_another_recipe_are_not_taken_for_this_ones(workplace: Path) -> None:
    plan = {"seeds": (0,), "finals": None, "elsewhere": {}}
    only = {"kl": {"distill.divergence": "forward_kl"}}
    compare.run(comparison(**plan, variants=only))
    other = {"kl": {"distill.divergence": "tvd"}}
    with pytest.raises(DistillSpecError, match="made by another recipe"):
        compare.run(comparison(**plan, variants=other))
    path = FOLDER / "first/kl/seed-0/measured.json"
    path.write_text("{}")
    with pytest.raises(DistillSpecError, match="cannot be read: 'readings' is missing"):
        compare.run(comparison(**plan, variants=only))


def test_what_was_measured_on_other_texts_is_measured_anew_and_not_trained_again(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"seeds": (0,), "finals": None, "elsewhere": {}}
    only = {"kl": {"distill.divergence": "forward_kl", "lora": {"rank": 2}}}
    compare.run(comparison(**plan, variants=only))
    path = FOLDER / "first/kl/seed-0/measured.json"
    before = json.loads(path.read_text())

    def fit(*_: Any, **__: Any) -> Any:
        raise AssertionError("it is trained already")

    monkeypatch.setattr(compare, "fit", fit)
    compare.run(comparison(**plan, variants=only))
    assert json.loads(path.read_text()) == before
    elsewhere = {"noise": {"kind": "adversarial", "shapes": ("random",), "tokens": 8}}
    for changes in ({"gamma": 3}, {"texts": 3}, {"elsewhere": elsewhere}):
        compare.run(comparison(**{**plan, "variants": only, **changes}))
        after = json.loads(path.read_text())
        assert after["cost"] == before["cost"]
        assert after["readings"] != before["readings"]


MADE = {"kind": "pruned", "layers": 1}
ONCE: dict[str, Any] = {"seeds": (0,), "finals": None, "elsewhere": {}, "minutes": 0.005}


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
    assert look(plan) == 0
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
    assert look(plan) == 0
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
        "further": {"pair.draft": "variant:bridged", **bridged},
    }
    plan = comparison(**ONCE, variants=variants)
    assert compare.run(plan) == 0
    kept = FOLDER / "first/bridged/seed-0/draft"
    assert load_tokenizer(str(kept)).get_vocab() == tokenizer.get_vocab()
    assert json.loads((kept / "config.json").read_text())["vocab_size"] == 310
    value = json.loads((FOLDER / "first/further/seed-0/measured.json").read_text())
    assert value["readings"].keys() == {"held-out"}


def test_a_comparison_is_of_one_target(workplace: Path) -> None:
    variants = {"kl": {}, "other": {"pair.target": "pair/draft"}}
    with pytest.raises(DistillSpecError, match="changes pair.target"):
        look(comparison(variants=variants))
    plan = comparison(**ONCE | {"minutes": 1e-5}, variants=variants)
    with pytest.raises(DistillSpecError, match="changes pair.target"):
        compare.run(plan)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> None:
    monkeypatch.setattr(compare, "join", lambda: World(2, 2, 0))
    with pytest.raises(DistillSpecError, match="start it without NPROC"):
        compare.run(comparison())


def test_a_recipe_that_makes_a_model_is_none_to_compare(workplace: Path) -> None:
    Path("pair.yaml").write_text(
        "kind: pretrain\noutput: out\ncorpus: {kind: python-source, packages: [pytest]}\n"
        "tokenizer: {take_from: pair/target}\nstart_from: pair/target\n"
    )
    with pytest.raises(DistillSpecError, match="this recipe makes a model from nothing"):
        look(comparison())


def test_a_variant_with_other_prompts_is_refused(workplace: Path) -> None:
    other = {"kl": {}, "fewer": {"data.max_prompts": 8}}
    with pytest.raises(DistillSpecError, match="trains all on the same prompts"):
        compare.run(comparison(variants=other))
    look(comparison(variants={"kl": {}}, changes={"data.max_prompts": 8}))


def test_a_comparison_whose_target_was_exchanged_does_not_go_on(workplace: Path) -> None:
    _begun()
    file = workplace / "pair/target/model.safetensors"
    weights = {name: weight * 1.5 for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(DistillSpecError, match="the target's weights .* changed since"):
        _begun()


def test_a_comparison_whose_text_was_edited_does_not_go_on(workplace: Path) -> None:
    _begun()
    rows = (workplace / "rows.jsonl").read_text()
    (workplace / "rows.jsonl").write_text(rows.replace("    return", "    yield"))
    with pytest.raises(DistillSpecError, match="their own responses .*changed since"):
        _begun()


def _begun() -> None:
    """A comparison, loaded and compared with what it was started with."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    compare._Comparing(comparison(elsewhere={}, seeds=(0,)), FOLDER)

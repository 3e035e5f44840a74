"""The verb `compare` on the tiny pair: rounds, tables, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from distillspec.errors import DistillSpecError
from distillspec.measure.summary.variants import VariantCost, markdown
from distillspec.measure.summary.variants_file import read_round
from distillspec.runtime.world import World
from distillspec.workflows import compare, compare_train
from distillspec.workflows.compare_variants import print_variants
from tests.workflows.tiny_comparison import FOLDER, ONCE, comparison, measured, workplace

__all__ = ["workplace"]


def test_variants_are_trained_measured_and_reported_and_results_are_reused(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = compare_train.train_draft
    count = 0

    def cut_off(*args: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return trained(*args, **settings)

    monkeypatch.setattr(compare_train, "train_draft", cut_off)
    with pytest.raises(KeyboardInterrupt):
        compare.run(comparison())
    before = measured()
    assert len(before) == 4
    monkeypatch.setattr(compare_train, "train_draft", trained)
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
    first = read_round(FOLDER / "first.json")
    assert (first.comparison, first.against, first.minutes) == ("tiny", "kl", 0.01)
    assert [(one.kind, one.texts) for one in first.tables] == [("held-out", 4), ("noise", 4)]
    assert first.tables[0].documents == 4
    assert markdown(first.tables[0].standings, "kl", first.confidence) in text
    assert first.plan["variants"].keys() == {"kl", "sampled", "chosen"}
    assert {"command", "git", "machine", "threads"} <= first.environment.keys()
    printed = capsys.readouterr().out
    assert (
        "first: held-out prompts, 4 texts of 4 documents, T = 1, gamma 2; 0.01 minutes" in printed
    )
    # Everything is there, if by a version that knew less to choose: nothing is trained.
    for path in FOLDER.rglob("recipe.yaml"):
        text = path.read_text()
        assert "  jsd_weight: 0.5\n" in text
        path.write_text(text.replace("  jsd_weight: 0.5\n", ""))
    monkeypatch.setattr(compare_train, "train_draft", None)
    assert compare.run(comparison()) == 0
    assert all("  jsd_weight: 0.5\n" in path.read_text() for path in FOLDER.rglob("recipe.yaml"))
    path.write_text(path.read_text() + "of_another_version: 1\n")
    with pytest.raises(DistillSpecError, match="made by another recipe"):
        compare.run(comparison())
    path.write_bytes(b"\xff")
    with pytest.raises(DistillSpecError, match="made by another recipe"):
        compare.run(comparison())


def test_a_variant_that_may_not_be_is_refused_before_any_is_trained(workplace: Path) -> None:
    variants = {"kl": {}, "less": {"data.max_prompt_tokens": 8}}
    with pytest.raises(DistillSpecError, match="'less' changes data"):
        compare.run(comparison(variants=variants))
    assert not FOLDER.exists()


def test_a_comparison_is_of_one_target(workplace: Path) -> None:
    variants = {"kl": {}, "other": {"pair.target": "pair/draft"}}
    with pytest.raises(DistillSpecError, match="changes pair.target"):
        print_variants(comparison(variants=variants))
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
        print_variants(comparison())


def test_a_variant_with_other_prompts_is_refused(workplace: Path) -> None:
    variants = {"kl": {}, "fewer": {"data.max_prompts": 8}}
    with pytest.raises(DistillSpecError, match="'fewer' changes data"):
        compare.run(comparison(variants=variants))
    print_variants(comparison(variants={"kl": {}}, changes={"data.max_prompts": 8}))


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
    with pytest.raises(DistillSpecError, match="their responses .*changed since"):
        _begun()


def _begun() -> None:
    """A comparison, loaded and compared with what it was started with."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    compare._Comparison(comparison(elsewhere={}, seeds=(0,)), FOLDER)

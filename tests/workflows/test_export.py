"""Exporting the draft of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.workflows import distill, evaluate, export
from distillspec.workflows.run_folder import RunFolder
from tests.workflows.tiny_workplace import (
    only_run,
    recipe,
)


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

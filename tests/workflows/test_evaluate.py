"""Measuring the drafts of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.loading import is_of_suite
from distillspec.recipe.schema import Recipe
from distillspec.workflows import distill, evaluate, export
from distillspec.workflows.run_folder import RunFolder
from tests.workflows.tiny_workplace import (
    only_run,
    recipe,
)


def test_a_report_needs_something_measured(workplace: Path) -> None:
    distill.train(recipe(), None)
    with pytest.raises(DistillSpecError, match="no evaluation yet"):
        evaluate.report(only_run())
    evaluate.evaluate(only_run(), "tiny.yaml")
    assert evaluate.report(only_run()) == 0
    (only_run() / "evaluation/tiny").rename(only_run() / "evaluation/.tiny.old")
    with pytest.raises(DistillSpecError, match="no evaluation yet"):
        evaluate.report(only_run())


def test_numbers_go_into_no_draft_but_the_one_that_was_exported(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damaged weights keep their card; exporting them again brings them and the numbers."""
    distill.train(recipe(), None)
    run = only_run()
    weights, card = run / "draft" / "model.safetensors", run / "draft" / "README.md"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-2] + b"\xc0\x7f")  # a NaN, in bfloat16
    before = card.read_text()
    capsys.readouterr()
    evaluate.evaluate(run, "tiny.yaml")
    reported = capsys.readouterr().out
    assert "model.safetensors changed since the export" in reported
    assert f"distillspec export {run}" in reported
    assert "recommends blocks" not in reported
    assert card.read_text() == before
    export.export(run, None)
    assert weights.read_bytes() == whole
    assert "| distilled |" in card.read_text()
    evaluate.evaluate(run, "tiny.yaml")
    assert "recommends blocks" in capsys.readouterr().out


def test_nothing_is_measured_before_a_trimmed_head_is_known(workplace: Path) -> None:
    values = recipe(source={"target": 1.0}).model_dump()
    values["pair"]["draft_head"] = {"keep": 120}
    empty = RunFolder.begin(Recipe.model_validate(values))
    with pytest.raises(DistillSpecError, match="no draft has been trained"):
        evaluate.evaluate(empty.path, "tiny.yaml")


def test_an_evaluation_that_was_interrupted_goes_on_with_the_command_that_is_said(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distill.train(recipe(), None)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distillspec.workflows.evaluate.evaluate_run", interrupted)
    changes = ["name=mine", "prompts.count=2"]
    with pytest.raises(KeyboardInterrupt) as raised:
        evaluate.evaluate(only_run(), "s.yaml", changes)
    *_, first, second = str(raised.value).split()
    assert all(is_of_suite(change) for change in (first, second))
    assert [c.removeprefix("suite.") for c in (first, second)] == changes

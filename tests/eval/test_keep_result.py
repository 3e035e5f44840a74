"""What is kept of a measurement: everything that the page shows, in at most 200 KB."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.summary.file import read_summary, write_summary
from distillspec.measure.summary.records import Summary
from distillspec.runtime import provenance
from eval.keep_result import MOST_BYTES, keep
from tests.measured import a_regret


def evaluation(folder: Path, summary: Summary) -> Path:
    """A run folder with one evaluation."""
    place = folder / "run" / "evaluation" / "quick"
    place.mkdir(parents=True)
    (folder / "run" / "recipe.yaml").write_text(
        "distill: {divergence: jsd}\ndata: {template_date: 2026-01-01}\n"  # a date is text
    )
    log = provenance.RunLog(folder / "run" / "run.json", provenance.gather(["python", "train"]))
    log.record(tokens=1)
    write_summary(summary, place / "summary.json")
    return place / "summary.json"


def test_an_evaluation_is_kept_without_texts_and_curves_and_with_its_recipe(
    tmp_path: Path, broken_down: Summary
) -> None:
    path = evaluation(tmp_path, replace(broken_down, regrets=[a_regret()]))
    kept = keep("mine", path, "one busy core", tmp_path / "results")
    assert kept == tmp_path / "results" / "mine.json"
    before, after = read_summary(path), read_summary(kept)
    assert before.examples and before.contexts and before.regrets[0].regret
    assert not after.examples and not after.contexts and not after.regrets[0].regret
    assert after.regrets[0].relative == before.regrets[0].relative
    assert (after.cells, after.baseline, after.comparisons, after.notes) == (
        before.cells,
        before.baseline,
        before.comparisons,
        before.notes,
    )
    assert after.documents == before.documents
    assert after.environment["conditions"] == "one busy core"
    assert after.environment["recipe"] == {
        "distill": {"divergence": "jsd"},
        "data": {"template_date": "2026-01-01"},
    }
    assert after.environment["run_commands"] == [["python", "train"]]


def test_keeping_twice_gives_the_same_bytes(tmp_path: Path, broken_down: Summary) -> None:
    path = evaluation(tmp_path, broken_down)
    first = keep("mine", path, "", tmp_path).read_bytes()
    assert keep("mine", path, "", tmp_path).read_bytes() == first
    # What is kept already may be kept again, with conditions.
    again = json.loads(keep("mine", tmp_path / "mine.json", "busy", tmp_path).read_text())
    assert again["environment"].pop("conditions") == "busy"
    assert again == json.loads(first)


def test_tables_of_a_benchmark_are_kept_as_they_are(tmp_path: Path) -> None:
    content = {"bench": "verify", "environment": {"threads": 1}, "tables": {"T = 1": []}}
    (tmp_path / "verify.json").write_text(json.dumps(content))
    kept = keep("verify", tmp_path / "verify.json", "", tmp_path / "results")
    assert json.loads(kept.read_text()) == content


def test_other_files_and_large_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"rows": []}')
    with pytest.raises(DistillSpecError, match="it has no environment"):
        keep("mine", path, "", tmp_path)
    path.write_text(json.dumps({"environment": {}, "tables": "x" * MOST_BYTES}))
    with pytest.raises(DistillSpecError, match="bytes are more than 200,000"):
        keep("mine", path, "", tmp_path)
    assert not (tmp_path / "mine.json").exists()


def test_no_path_of_the_machine_is_kept_with_a_command(
    tmp_path: Path, broken_down: Summary
) -> None:
    words = ["/home/me/.venv/bin/python", "-u", "-m", "distillspec", "run", "r.yaml"]
    environment = {**broken_down.environment, "command": words}
    kept = keep(
        "mine", evaluation(tmp_path, replace(broken_down, environment=environment)), "", tmp_path
    )
    command = read_summary(kept).environment["command"]
    assert command == ["python", "-m", "distillspec", "run", "r.yaml"]

"""The same draft timed twice: by hand, and in a real evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distillspec.measure.evaluation import ROWS, evaluate
from distillspec.measure.stats.intervals import NOTHING
from distillspec.measure.summary.noise_floor import in_words, noise_floor, timed_again
from distillspec.recipe.suite import Suite
from tests.measure.two_prompts import CONFIDENCE, a_row, copied, counts

if TYPE_CHECKING:
    from tests.measured import Setting


def test_the_second_time_is_compared_with_the_first_document_by_document() -> None:
    first = [a_row(i, "distilled", 2.0, counts(5, (4, 2))) for i in (0, 1)]
    second = [replace(row, seconds=1.6, again=True) for row in first]
    other = [a_row(i, "undistilled", 9.0, counts(9, (1, 0))) for i in (0, 1)]
    found = noise_floor(copied([*second, *first, *other]), CONFIDENCE)
    assert found is not None
    assert (found.draft, found.method, found.gamma, found.temperature) == (
        "distilled",
        "standard",
        2,
        1.0,
    )
    assert found.documents == 10
    assert found.speed.value == pytest.approx(2.0 / 1.6 - 1.0)
    assert found.tau == (0.0, 0.0, 0.0)
    assert "differs from itself by +25.0%" in in_words(found)
    assert "+0.0% [no interval] in tau" in in_words(replace(found, tau=NOTHING._replace(value=0.0)))
    assert noise_floor([*first, *other], CONFIDENCE) is None


def test_the_distilled_draft_is_timed_again_at_the_largest_gamma(tiny_suite: Suite) -> None:
    suite = tiny_suite.model_copy(update={"noise_floor": True})
    column = timed_again(suite, ["undistilled", "distilled", "control"])
    assert str(column) == "distilled/standard@3 again"
    assert suite.again_at == 1.0
    assert str(timed_again(suite, ["undistilled"])) == "undistilled/standard@3 again"
    assert timed_again(tiny_suite, ["distilled"]) is None


def test_an_evaluation_times_one_cell_twice_and_no_number_of_the_cells_changes(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    changes = {"noise_floor": True, "quality": None, "gammas": (2,), "drafts": ("distilled",)}
    suite = tiny_suite.model_copy(update=changes)
    summary = evaluate(suite, folder=tmp_path / "a", **setting.arguments())
    rows = [json.loads(line) for line in (tmp_path / "a" / ROWS).read_text().splitlines()]
    again = [row for row in rows if row["again"]]
    assert {(row["draft"], row["gamma"], row["temperature"]) for row in again} == {
        ("distilled", 2, 1.0)
    }
    assert len(again) == len({row["prompt"] for row in again}) == 4
    assert summary.noise_floor is not None
    assert any(note.startswith("Noise floor: the distilled draft") for note in summary.notes)
    once = suite.model_copy(update={"noise_floor": False})
    without = evaluate(once, folder=tmp_path / "b", **setting.arguments())
    assert without.noise_floor is None
    assert [(c.tau, c.alpha) for c in without.cells] == [(c.tau, c.alpha) for c in summary.cells]
    # A folder that was begun without it goes on without it.
    resumed = evaluate(suite, folder=tmp_path / "b", **setting.arguments())
    assert resumed.noise_floor is None
    assert len(resumed.cells) == len(summary.cells)

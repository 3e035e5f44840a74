"""The exported draft uses what engines run, not the newest evaluation."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from distillspec.export.evidence import evidence
from distillspec.measure.summary.file import write_summary
from distillspec.measure.summary.records import Summary
from tests.measured import a_cell, a_recommendation, by_hand, several_methods

__all__ = ["by_hand", "several_methods"]


def _written(folder: Path, summary: Summary, hour: int) -> None:
    path = folder / summary.suite / "summary.json"
    path.parent.mkdir(parents=True)
    write_summary(summary, path)
    os.utime(path, (3600 * hour, 3600 * hour))


def test_a_later_suite_of_other_methods_changes_nothing(
    by_hand: Summary, several_methods: Summary, tmp_path: Path
) -> None:
    said: list[str] = []
    assert evidence(tmp_path, said.append) is None
    _written(tmp_path, replace(by_hand, suite="quick"), 1)
    _written(tmp_path, replace(several_methods, suite="blocks", standard_methods=[]), 2)
    found = evidence(tmp_path, said.append)
    assert found is not None
    assert found.suite == "quick"
    assert said == []


def test_the_newest_that_shows_what_distilling_changed_comes_first(
    by_hand: Summary, tmp_path: Path
) -> None:
    """`methods` times the undistilled draft by another method, so that none is comparable."""
    cells = [a_cell("distilled", 4, 1.0), a_cell("undistilled", 4, 1.0, method="weak")]
    methods = replace(
        by_hand, suite="methods", cells=cells, recommendation=[a_recommendation(None)],
        standard_methods=["standard", "weak"],
    )  # fmt: skip
    _written(tmp_path, methods, 3)
    found = evidence(tmp_path, print)
    assert found is not None
    assert found.suite == "methods"  # better than nothing
    _written(tmp_path, replace(by_hand, suite="quick"), 1)
    _written(tmp_path, replace(by_hand, suite="grid"), 2)
    found = evidence(tmp_path, print)
    assert found is not None
    assert found.suite == "grid"


def test_a_summary_of_another_version_is_passed_over_aloud(
    by_hand: Summary, tmp_path: Path
) -> None:
    _written(tmp_path, replace(by_hand, suite="quick"), 1)
    _written(tmp_path, replace(by_hand, suite="odd"), 2)
    (tmp_path / "odd" / "summary.json").write_text("{}")
    said: list[str] = []
    found = evidence(tmp_path, said.append)
    assert found is not None
    assert found.suite == "quick"
    assert len(said) == 1
    assert "skipped" in said[0]


def test_a_folder_that_was_moved_aside_is_no_evaluation(by_hand: Summary, tmp_path: Path) -> None:
    _written(tmp_path, replace(by_hand, suite="quick"), 1)
    (tmp_path / "quick").rename(tmp_path / ".quick.old")
    assert evidence(tmp_path, print) is None

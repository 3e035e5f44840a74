"""summary.json reads back as it was; what does not exist is null."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.summary.file import SCHEMA_VERSION, read_summary, write_summary
from distillspec.measure.summary.records import Summary
from tests.measured import a_cell, a_recommendation


def test_a_summary_reads_back_as_it_was_written(by_hand: Summary, tmp_path: Path) -> None:
    write_summary(by_hand, tmp_path / "summary.json")
    assert read_summary(tmp_path / "summary.json") == by_hand


def test_categories_and_contexts_read_back_and_those_with_few_prompts_have_no_rates(
    broken_down: Summary, tmp_path: Path
) -> None:
    write_summary(broken_down, tmp_path / "summary.json")
    again = read_summary(tmp_path / "summary.json")
    assert [one.category for one in again.categories[:2]] == ["q & a", "rare"]
    assert again.categories[0] == broken_down.categories[0]
    assert math.isnan(again.categories[1].tau.value)
    assert again.contexts[:2] == broken_down.contexts[:2]
    best = [(one.draft, one.temperature, one.category) for one in again.best_by_category()]
    assert best == [
        ("distilled", 0.0, "q & a"),
        ("distilled", 0.0, "rare"),
        ("distilled", 1.0, "q & a"),
        ("distilled", 1.0, "rare"),
    ]
    again.recommendation.extend(a_recommendation(t, "control") for t in (0.0, 1.0))
    drafts = [one.draft for one in again.best_by_category() if one.temperature == 0.0]
    assert drafts == ["distilled", "control", "distilled", "control"]


def test_a_summary_from_before_categories_is_refused_with_a_remedy(
    by_hand: Summary, tmp_path: Path
) -> None:
    write_summary(by_hand, tmp_path / "summary.json")
    old = json.loads((tmp_path / "summary.json").read_text())
    del old["categories"]
    (tmp_path / "summary.json").write_text(json.dumps(old))
    with pytest.raises(DistillSpecError, match="categories"):
        read_summary(tmp_path / "summary.json")


def test_a_summary_from_before_documents_is_read_and_its_verdicts_are_not_repeated(
    by_hand: Summary, tmp_path: Path
) -> None:
    write_summary(by_hand, tmp_path / "summary.json")
    old = json.loads((tmp_path / "summary.json").read_text())
    del old["documents"], old["text_documents"]
    for comparison in old["comparisons"]:
        del comparison["documents"]
    (tmp_path / "summary.json").write_text(json.dumps(old))
    found = read_summary(tmp_path / "summary.json")
    assert found.cells == by_hand.cells
    assert {one.verdict for one in found.comparisons} == {"not tested"}
    assert "intervals are over prompts" in found.notes[-1]
    assert found.cautions[-1] == found.notes[-1]


def test_a_summary_from_before_cautions_has_those_of_the_methods_that_engines_run(
    by_hand: Summary, tmp_path: Path
) -> None:
    slow = [a_cell("distilled", 2, 1.0, measured_over_predicted=0.5)]
    other = [a_cell("distilled", 2, 1.0, method="block", measured_over_predicted=0.1)]
    cells = [*slow, *other]
    write_summary(replace(by_hand, cells=cells, greedy_divergences=[]), tmp_path / "summary.json")
    old = json.loads((tmp_path / "summary.json").read_text())
    del old["cautions"]
    (tmp_path / "summary.json").write_text(json.dumps(old))
    (said,) = read_summary(tmp_path / "summary.json").cautions
    assert said.startswith("1 of 1 cells reach less than 85%")


def test_an_interval_of_two_documents_may_be_too_wide_for_its_file(
    by_hand: Summary, tmp_path: Path
) -> None:
    cell = by_hand.cells[0]
    wide = replace(cell, speedup=cell.speedup._replace(high=1e80))
    write_summary(replace(by_hand, cells=[wide, *by_hand.cells[1:]]), tmp_path / "summary.json")
    read = read_summary(tmp_path / "summary.json").cells[0].speedup
    assert (read.value, read.low) == (cell.speedup.value, cell.speedup.low)
    assert math.isnan(read.high)


def test_a_number_that_does_not_exist_is_null_in_the_file_and_nan_in_the_record(
    by_hand: Summary, tmp_path: Path
) -> None:
    odd = replace(by_hand, cells=[a_cell("distilled", 2, 1.0, tau=math.nan)])
    write_summary(odd, tmp_path / "summary.json")
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text)["cells"][0]["tau"] is None
    assert "NaN" not in text
    cell = read_summary(tmp_path / "summary.json").cells[0]
    assert math.isnan(cell.tau.value)
    assert cell.repeated_ngram_share is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"suite": 3'])
def test_what_is_no_summary_is_the_users_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DistillSpecError, match="the summary of an evaluation cannot be read"):
        read_summary(tmp_path / "summary.json")
    with pytest.raises(DistillSpecError, match="the summary of an evaluation cannot be read"):
        read_summary(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"temperature": 9.0}, "its baseline has no temperature 9"),
        ({"speedup": 1e300}, "it holds a number beyond 1e\\+15"),
        ({"gamma": 10**30}, "it holds a number beyond 1e\\+15"),
        ({"draft": "x" * 201}, "a name of more than 200 characters"),
    ],
)
def test_what_cannot_be_drawn_is_the_users_error(
    changes: dict[str, object], why: str, by_hand: Summary, tmp_path: Path
) -> None:
    path = tmp_path / "summary.json"
    write_summary(by_hand, path)
    found = json.loads(path.read_text())
    found["cells"][0] |= changes
    path.write_text(json.dumps(found))
    with pytest.raises(DistillSpecError, match=why):
        read_summary(path)


def test_the_file_has_a_version_and_three_keys_per_interval(
    by_hand: Summary, tmp_path: Path
) -> None:
    path = tmp_path / "summary.json"
    write_summary(by_hand, path)
    written = json.loads(path.read_text())
    assert written["schema_version"] == SCHEMA_VERSION
    cell, comparison = written["cells"][0], written["comparisons"][0]
    assert (cell["tau"], cell["tau_low"], cell["tau_high"]) == (2.2, 2.0, 2.4)
    assert [comparison[key] for key in ("difference", "low", "high")] == [0.2, 0.1, 0.3]


def test_a_summary_from_before_versions_and_argmax_drafts_is_read(
    by_hand: Summary, tmp_path: Path
) -> None:
    path = tmp_path / "summary.json"
    write_summary(by_hand, path)
    old = json.loads(path.read_text())
    del old["schema_version"]
    for cell in old["cells"]:
        for key in ("alpha_argmax", "alpha_argmax_low", "alpha_argmax_high"):
            del cell[key]
    path.write_text(json.dumps(old))
    read = read_summary(path)
    assert read.comparisons == by_hand.comparisons
    assert all(map(math.isnan, read.cells[0].alpha_argmax))


@pytest.mark.parametrize(("key", "value"), [("tau_low", "low"), ("tau_low", None)])
def test_an_interval_without_a_bound_names_it(
    key: str, value: str | None, by_hand: Summary, tmp_path: Path
) -> None:
    path = tmp_path / "summary.json"
    write_summary(by_hand, path)
    broken = json.loads(path.read_text())
    if value is None:
        del broken["cells"][0][key]
    else:
        broken["cells"][0][key] = value
    path.write_text(json.dumps(broken))
    with pytest.raises(DistillSpecError, match=r"cells\[0\]\.tau\.low"):
        read_summary(path)


def test_a_summary_of_another_version_is_refused(by_hand: Summary, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_summary(by_hand, path)
    later = json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION + 1}
    path.write_text(json.dumps(later))
    with pytest.raises(DistillSpecError, match="schema_version"):
        read_summary(path)

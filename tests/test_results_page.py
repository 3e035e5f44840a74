"""The page of results: every figure comes from a file in eval/results/."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.file import write_summary
from distillspec.measure.summary.records import Summary
from docs import across, results
from docs.generate import NOTE
from docs.kept import RESULTS, Kept, read_results, typed_command
from docs.published import (
    CLAIMS,
    faster_than_undistilled,
    of_bench,
    over_baseline,
    over_best_arm,
    speedup,
)
from eval.keep_result import MOST_BYTES
from tests.measure.summary.test_variants_file import a_round
from tests.measured import a_cell, a_comparison, a_regret

ENVIRONMENT = {
    "command": [".venv/bin/python", "eval/bench/verify.py", "--prompts", "12"],
    "started": "2026-11-30T21:22:49+00:00",
    "git": {"commit": "8def8b7e32c7b3e60dd6ff24d316e16f8f31550d", "dirty": True},
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "machine": {"cpu": "A|B", "cpu_flags": ["avx2"], "cores": 2, "gpus": []},
    "threads": 1,
    "conditions": "the other core was busy",
    "models": {"target": {"path": "checkpoints/nano-python/target"}},
}
BENCH = {
    "bench": "verify",
    "environment": ENVIRONMENT,
    "settings": {"target": "checkpoints/nano-python/target", "c": 0.17, "prompts_file": None},
    "documents": 12,
    "tables": {
        "T = 1": [
            {"rule": "token", "L": 8, "more tau, %": None},
            {"rule": "block", "L": 8, "more tau, %": {"value": 5.51, "low": 1.95, "high": 9.19}},
        ]
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "verify.json").write_text(json.dumps(BENCH))
    return tmp_path


def numbers(text: str) -> set[str]:
    """Decimals, percentages and factors."""
    return set(re.findall(r"\d+\.\d+|\d+(?= ?%)|\d+(?=x\b)", text))


def row_of(page: str, words: str) -> str:
    (row,) = [line for line in page.splitlines() if words in line and line.startswith("| ")]
    return row


# --- the page ------------------------------------------------------------------------------------


def test_the_page_is_made_from_the_kept_files_byte_for_byte() -> None:
    page = RESULTS.parents[1] / "docs" / "explanation" / "results.md"
    assert page.read_bytes().decode() == f"{NOTE}\n{results.page(read_results())}"


def test_without_files_the_page_has_no_figure_but_published_ones() -> None:
    published = {
        number
        for claim in CLAIMS
        for number in numbers(f"{claim.system} {claim.published} {claim.setting}")
    }
    assert numbers(results.page({})) - published == set()


def test_without_files_every_row_names_its_command() -> None:
    rows = [line for line in results.page({}).splitlines() if results.MISSING in line]
    assert len(rows) == len(CLAIMS)
    assert all(claim.command in row for claim, row in zip(CLAIMS, rows, strict=True))


def test_every_number_of_a_row_changes_with_its_file(folder: Path) -> None:
    page = results.page(read_results(folder))
    row = row_of(page, "block verification")
    assert "[T = 1: more tau +5.5 % [1.9, 9.2]](#verify)" in row
    assert "nano-python pair, 12 documents; rule block, L 8" in row
    assert "`eval/bench/verify.py --prompts 12`" in row
    (folder / "verify.json").write_text(json.dumps(BENCH).replace("5.51", "-0.25"))
    changed = row_of(results.page(read_results(folder)), "block verification")
    assert changed == row.replace("+5.5", "-0.2")


def test_a_section_has_command_date_commit_machine_and_conditions(folder: Path) -> None:
    page = results.page(read_results(folder))
    section = page.partition("## verify\n")[2].partition("\n## ")[0]
    for words in (
        "command: `eval/bench/verify.py --prompts 12`",
        "date: 2026-11-30; commit 8def8b7e32 with changes; torch 2.13.0",
        "A\\|B (avx2), no GPU; cores: 2, threads: 1",
        "conditions: the other core was busy",
        "12 documents. Settings: target checkpoints/nano-python/target, c 0.17.",
        "| block | 8 | 5.5 [1.9, 9.2] |",
    ):
        assert words in section


def test_a_file_without_the_cell_gives_a_row_that_is_not_measured(folder: Path) -> None:
    (folder / "verify.json").write_text(json.dumps(BENCH).replace('"block"', '"other"'))
    row = row_of(results.page(read_results(folder)), "block verification")
    assert results.MISSING in row and "verify.py --counts" in row


def test_evaluations_and_comparisons_get_their_tables(tmp_path: Path, broken_down: Summary) -> None:
    summary = replace(broken_down, environment=ENVIRONMENT, regrets=[a_regret()])
    kept = {
        "methods": Kept("methods", summary),
        "objectives": Kept("objectives", a_round()._replace(environment=ENVIRONMENT)),
    }
    page = results.page(kept)
    for words in ("## methods", "The target alone:", "best arm", "## objectives", "| tvd | 2.200"):
        assert words in page
    write_summary(summary, tmp_path / "methods.json")
    assert results.page(read_results(tmp_path)).count("The target alone:") == 1


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"rows": []}')
    with pytest.raises(DistillSpecError, match="this file of results cannot be read"):
        read_results(tmp_path)


# --- the kept files ------------------------------------------------------------------------------


def test_kept_files_are_small_and_name_no_folder_of_a_machine() -> None:
    for path in RESULTS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert len(text.encode()) <= MOST_BYTES
        assert not re.search(r'"/(tmp|home|root|work|Users)/', text), path.name


def test_a_command_is_shown_without_its_interpreter() -> None:
    assert typed_command(["/usr/bin/python3", "-m", "distillspec", "run", "a b"]) == (
        "distillspec run 'a b'"
    )


TESTED = a_comparison(
    quantity="speed",
    against="undistilled",
    temperature=1.0,
    gamma=4,
    relative=Interval(0.125, 0.05, 0.2),
    verdict="higher",
)


# --- figures -------------------------------------------------------------------------------------


def test_the_gain_of_distilling_is_where_it_was_tested(broken_down: Summary) -> None:
    others = [
        replace(TESTED, verdict="not tested"),
        replace(TESTED, quantity="tau"),
        replace(TESTED, against="control"),
    ]
    summary = replace(broken_down, environment=ENVIRONMENT, comparisons=[*others, TESTED])
    figure = faster_than_undistilled(Kept("nano-python", summary))
    assert figure is not None
    # Both drafts at their own fastest gamma, and not at the one of the verdict.
    assert figure.text == (
        "T = 1, gamma 4: +12.5 % [5.0, 20.0] (over the target alone, each at its best gamma: "
        "undistilled 1.20x, distilled 1.60x)"
    )
    assert figure.setting.startswith("target nano-python/target, ")
    nothing = replace(summary, comparisons=others)
    assert faster_than_undistilled(Kept("nano-python", nothing)) is None


def test_the_drift_table_has_the_gains_where_they_were_tested(broken_down: Summary) -> None:
    unsure = replace(TESTED, against="control", verdict="no difference shown")
    untested = replace(TESTED, quantity="expected tau", verdict="not tested")
    summary = replace(broken_down, comparisons=[untested, TESTED, unsure])
    rows = across.drift_table({"nano-cpp": Kept("nano-cpp", summary)}).splitlines()
    (row,) = (line for line in rows if line.startswith("| far | 1 |"))
    assert row.endswith(" | – | +12.5 % [5.0, 20.0] | none shown (+12.5 % [5.0, 20.0]) |")
    assert not any(line.startswith("| near") for line in rows)


def test_predictions_are_compared_by_gamma(broken_down: Summary) -> None:
    cells = [
        replace(cell, measured_over_predicted=0.9 if cell.draft == "distilled" else 1.1)
        for cell in broken_down.cells
        if cell.draft != "control"
    ]
    shown = across.predictions_table({"a": Kept("a", replace(broken_down, cells=cells))})
    rows = [f"| a | {gamma} | 1.000 | 0.900 | 1.100 | 4 |" for gamma in broken_down.gammas()]
    assert shown.splitlines()[2:] == rows


def test_a_speed_up_is_that_of_the_cell(broken_down: Summary) -> None:
    interval = Interval(0.75, 0.5, 1.0)
    cell = a_cell("distilled", 8, 1.0, method="spectr", speedup=interval)
    kept = Kept("methods", replace(broken_down, environment=ENVIRONMENT, cells=[cell]))
    figure = speedup("spectr", 8, 1.0)(kept)
    assert figure is not None and figure.text == "0.75x [0.50, 1.00]"
    assert speedup("spectr", 4, 1.0)(kept) is None


def test_a_chooser_that_needs_a_quarter_more_seconds_is_a_fifth_slower(
    broken_down: Summary,
) -> None:
    regret = a_regret(method="ucbspec", quantity="seconds", relative=Interval(0.25, 0.0, 1.0))
    rounds = replace(regret, quantity="rounds")
    summary = replace(broken_down, environment=ENVIRONMENT, regrets=[rounds, regret])
    figure = over_best_arm("ucbspec")(Kept("bandits", summary))
    assert figure is not None and figure.text.startswith("-20.0 % [-50.0, 0.0] than ")
    assert over_best_arm("exp3spec")(Kept("bandits", summary)) is None


def test_a_variants_figure_is_its_tau_against_the_baseline() -> None:
    compared = a_round()._replace(environment=ENVIRONMENT, plan={"recipe": "nano-python"})
    figure = over_baseline("tvd")(Kept("objectives", compared))
    assert figure is not None and figure.text == "expected tau +10.0 % [10.0, 10.0] against kl"
    assert figure.setting == ("recipe nano-python, 8 documents; T = 1, gamma 4; 2 minutes, 1 seeds")
    assert over_baseline("lk_alpha")(Kept("objectives", compared)) is None


def test_a_factor_of_a_benchmark_is_no_percentage(folder: Path) -> None:
    kept = read_results(folder)["verify"]
    assert of_bench(("T = 0",), "more tau, %", rule="block")(kept) is None
    text = json.dumps(BENCH).replace("more tau, %", "times")
    (folder / "verify.json").write_text(text)
    figure = of_bench(("T = 0", "T = 1"), "times", rule="block")(read_results(folder)["verify"])
    assert figure is not None and figure.text == "T = 1: times 5.51x [1.95, 9.19]"

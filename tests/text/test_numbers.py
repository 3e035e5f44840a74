"""What does not exist is a dash or words, wherever an evaluation's numbers are shown."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from distillspec.measure.summary.file import write_summary
from distillspec.measure.summary.records import Summary
from distillspec.report.page import write_report
from distillspec.report.terminal import summary_table
from distillspec.text.numbers import bracketed, interval, known, number, with_interval
from tests.measure.missing import NO_NUMBER, without
from tests.measured import a_place, a_regret, an_oracle


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf])
def test_a_number_that_does_not_exist_is_a_dash_and_never_has_a_unit(missing: float) -> None:
    assert [number(x, unit="x") for x in (None, missing, 2.345)] == ["–", "–", "2.35x"]
    assert [known(x, unit="x") for x in (None, missing, 2.345)] == [*["not measured"] * 2, "2.35x"]


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_an_interval_without_one_of_its_bounds_is_none(missing: float) -> None:
    assert interval(-0.5, 0.25, "+.1%") == "-50.0% to +25.0%"
    for low, high in ((0.5, missing), (-missing, 0.5), (missing, missing)):
        assert interval(low, high) == "–"
        assert interval(low, high, without="none") == "none"
        assert bracketed(low, high) == "[no interval]"
        assert with_interval(0.0, low, high, ".3f", "x") == "0.000x [no interval]"
    assert with_interval(1.5, 1.0, 2.0, unit="x") == "1.50x [1.00, 2.00]"
    assert with_interval(missing, 1.0, 2.0) == "not measured"


@pytest.mark.parametrize("missing", [math.nan, math.inf])
@pytest.mark.parametrize("bounds_alone", [True, False])
def test_neither_terminal_nor_report_prints_what_is_not_a_number(
    broken_down: Summary, missing: float, bounds_alone: bool, tmp_path: Path
) -> None:
    whole = replace(
        broken_down,
        ranking=[a_place(), a_place(method="other")],
        oracles=[an_oracle()],
        regrets=[a_regret()],
    )
    summary = without(whole, missing, bounds_alone=bounds_alone)
    console = Console(file=StringIO(), width=200)
    console.print(summary_table(summary))
    assert isinstance(console.file, StringIO)
    assert not NO_NUMBER.search(console.file.getvalue())
    if math.isnan(missing):  # what a summary.json can hold
        write_summary(summary, tmp_path / "summary.json")
        page = write_report(tmp_path, {}).read_text(encoding="utf-8")
        assert not NO_NUMBER.search(re.sub(r'"data:image[^"]*"', "", page))

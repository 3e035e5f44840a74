"""The file of a benchmark's tables, and the tables as Markdown."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import pytest

from distillspec.measure.stats.intervals import Interval
from eval.bench.result_file import add_argument, cell, markdown, percent, write

ROWS = [{"rule": "block", "K": 1, "kept": Interval(1.25, 1.0, 1.5), "more, %": math.nan}]


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gamma", type=int, default=8)
    parser.add_argument("--runs", type=Path, nargs="+", default=[Path("runs/a"), Path("b")])
    add_argument(parser)
    return parser.parse_args(words)


def test_the_file_holds_tables_settings_and_how_they_came_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "verify.json"
    started = ["python", "verify.py", "--json", str(path), "--gamma", "8"]
    monkeypatch.setattr(sys, "orig_argv", started)
    write("verify", arguments("--json", str(path)), {"T = 1": ROWS}, 12)
    held = json.loads(path.read_text())
    assert held["bench"] == "verify" and held["documents"] == 12
    assert held["settings"] == {"gamma": 8, "runs": ["runs/a", "b"]}
    row = {"rule": "block", "K": 1, "kept": {"value": 1.25, "low": 1.0, "high": 1.5}}
    assert held["tables"] == {"T = 1": [{**row, "more, %": None}]}
    assert held["environment"]["command"] == ["python", "verify.py", "--gamma", "8"]
    assert {"started", "git", "versions", "machine", "threads"} <= set(held["environment"])


def test_without_the_option_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("verify", arguments(), {"T = 1": ROWS}, 12)
    assert list(tmp_path.iterdir()) == []


def test_numbers_have_three_digits_or_so() -> None:
    assert cell(1537.4, "tokens/s") == "1,537"
    assert cell(2.9751, "tau") == "2.98"
    assert cell(0.76543, "alpha") == "0.765"
    assert cell(0.0, "alpha") == "0.000"
    assert cell(6.94, "more, %") == "6.9"
    assert cell(8, "K") == "8"
    assert cell(None, "more, %") == ""
    assert cell(math.nan, "tau") == "–"
    assert cell(Interval(12.34, 9.0, math.inf), "ms") == "12.3 [no interval]"


def test_a_table_has_the_columns_of_its_rows() -> None:
    assert markdown(ROWS).splitlines() == [
        "| rule | K | kept | more, % |",
        "| --- | --- | --- | --- |",
        "| block | 1 | 1.25 [1.00, 1.50] | – |",
    ]


def test_a_share_in_percent_keeps_its_bounds() -> None:
    assert percent(Interval(0.07, -0.01, 0.5)) == pytest.approx((7.0, -1.0, 50.0))
    assert percent(None) is None

"""The table in the terminal has the numbers of the report."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from distillspec.measure.summary.records import Summary
from distillspec.report.terminal import summary_table
from tests.measured import a_cell, a_comparison, a_place, an_oracle


def shown(summary: Summary, width: int = 140) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(summary_table(summary))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_each_cell_has_its_line_under_its_temperature(by_hand: Summary) -> None:
    text = shown(by_hand)
    at_zero, at_one = text.index("T = 0 "), text.index("T = 1 ")
    assert at_zero < at_one
    first = [line for line in text[at_zero:at_one].splitlines() if "1.50 to 1.70" in line]
    assert len(first) == 3 * 2
    assert "autoregressive 250 tokens/s" in text
    assert "repeated 4-grams 10%" in text


def test_a_null_result_stands_in_words(by_hand: Summary) -> None:
    comparisons = [a_comparison(verdict="no difference shown")]
    text = shown(replace(by_hand, comparisons=comparisons))
    assert "no difference shown" in text
    assert "No difference in tau is shown at any gamma." in text  # the notes


def test_what_was_not_tested_has_its_interval_and_no_verdict(by_hand: Summary) -> None:
    text = shown(replace(by_hand, comparisons=[a_comparison(verdict="not tested")]))
    assert "+0.10 to +0.30" in text
    assert "not tested" not in text


def test_brackets_in_findings_are_text_not_markup(by_hand: Summary) -> None:
    text = shown(replace(by_hand, notes=["gamma 4: 1.60x [1.50, 1.70] [bold]"]))
    assert "[1.50, 1.70] [bold]" in text


def test_a_second_method_gets_its_column(by_hand: Summary) -> None:
    cells = [*by_hand.cells, a_cell("distilled", 2, 1.0, method="block")]
    text = shown(replace(by_hand, cells=cells))
    assert "method" in text
    assert "block" in text


def test_a_narrow_terminal_still_gets_every_number(by_hand: Summary) -> None:
    assert "2.20" in shown(by_hand, width=80)


def test_methods_are_listed_in_the_order_of_their_speed(by_hand: Summary) -> None:
    assert "Methods by speed" not in shown(by_hand)
    places = [a_place(method="standard", relative=0.0, verdict="fastest"), a_place()]
    lines = shown(replace(by_hand, ranking=places)).splitlines()
    at = [next(i for i, line in enumerate(lines) if word in line) for word in ("fastest", "8.75")]
    spectr = next(line for line in lines if "spectr" in line)
    assert at == sorted(at)
    for number in ("321", "3.40", "9.50", "8.75", "0.29", "88%", "80% to 95%", "slower"):
        assert number in spectr


def test_what_an_oracle_would_reach_stands_once_above_its_temperature(by_hand: Summary) -> None:
    places = [a_place(temperature=t, method=name) for t in (0.0, 1.0) for name in ("one", "two")]
    oracles = [an_oracle(temperature=t) for t in (0.0, 1.0)]
    text = shown(replace(by_hand, ranking=places, oracles=oracles), width=160)
    lines = [line for line in text.splitlines() if "slower" in line or "not a method" in line]
    assert ["oracle on standard" in line for line in lines] == [True, False, False] * 2


def test_categories_have_their_rates_and_small_ones_their_counts(
    by_hand: Summary, broken_down: Summary
) -> None:
    assert "By category" not in shown(by_hand)
    lines = shown(broken_down).splitlines()
    many, few = ([line for line in lines if name in line] for name in ("q & a", "rare"))
    assert (len(many), len(few)) == (2, 2)
    for number in ("60.0%", "50.0% to 70.0%", "2.20", "1.60x", "1.50 to 1.70"):
        assert number in many[0]
    assert "60 of 100" in few[0] and "85 in 25" in few[0] and "nan" not in few[0]


def test_the_last_lines_answer_whether_it_is_faster(by_hand: Summary) -> None:
    text = shown(by_hand)
    answers = text[text.index("Findings") :]
    assert answers.index("Is it faster?") < answers.index("How sure?")
    assert answers.count("Is it faster?") == 2  # temperatures


def test_five_findings_and_every_caution_are_shown(by_hand: Summary) -> None:
    notes = [f"finding {number}" for number in range(9)]
    text = shown(replace(by_hand, notes=notes, cautions=["finding 8"]))
    found = [line.strip() for line in text.splitlines() if "- finding" in line]
    assert found == [f"- finding {number}" for number in (8, 0, 1, 2, 3, 4)]
    assert "- 3 more in report.html" in text

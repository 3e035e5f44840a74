"""Records become text once, for every view."""

from __future__ import annotations

import math
from typing import NamedTuple

from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.records import Summary
from distillspec.report.grid import CARD, PAGE, TERMINAL, Column, Row, grid

HALF = Interval(0.5, 0.25, math.nan)


class Record(NamedTuple):
    name: str
    tau: Interval


COLUMNS = (
    Column("name", "name", terminal="value", card="value"),
    Column("tau", "tau", ".2f", "x", page="bounds", card="both"),
    Column("high", lambda record: record.tau.high, ".1f", page="hidden", terminal="value"),
)
ROWS = [Row(Record("a", Interval(2.2, 2.0, 2.4)), "best"), Row(Record("b", HALF))]


def test_each_view_has_its_columns_and_its_form_of_an_interval(by_hand: Summary) -> None:
    page, terminal, card = (grid(by_hand, COLUMNS, ROWS, v) for v in (PAGE, TERMINAL, CARD))
    assert [line.cells for line in page.lines] == [
        ["a", "2.20x", "2.00 to 2.40"],
        ["b", "0.50x", "–"],
    ]
    assert [line.cells for line in terminal.lines] == [["a", "2.4"], ["b", "–"]]
    assert [line.cells for line in card.lines] == [
        ["a", "2.20x [2.00, 2.40]"],
        ["b", "0.50x [no interval]"],
    ]
    assert page.lines[0].emphasis == "best"


def test_heads_name_the_confidence_and_the_definition(by_hand: Summary) -> None:
    heads = grid(by_hand, COLUMNS, ROWS, PAGE).heads
    assert [(head.title, head.is_number) for head in heads] == [
        ("name", False),
        ("tau", True),
        ("95%", True),
    ]
    assert heads[1].definition == by_hand.definitions["tau"]


def test_words_in_a_column_of_numbers_have_no_bounds(by_hand: Summary) -> None:
    columns = [Column("tau", lambda record: "9 in 4", ".2f", page="bounds")]
    assert grid(by_hand, columns, ROWS[:1], PAGE).lines[0].cells == ["9 in 4", ""]

"""A table of records as text: what the terminal, the page and the card lay out.

A `Column` reads one quantity from a record. A view (`PAGE`, `TERMINAL`, `CARD`) selects columns
and how they show an interval. `grid` turns records into text, which a renderer only lays out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.records import Summary
from distillspec.text.numbers import interval, number, with_interval

Detail = Literal["hidden", "value", "bounds", "both"]
"""value: the estimate alone. bounds: the bounds in a second cell. both: all in one cell."""
Value = str | float | None | Interval


class Column(NamedTuple):
    """One quantity of a table.

    Attributes:
        title: The heading.
        value: Name of the record's field, or a function that reads the quantity from a record.
        form: Format of a number, possibly by record; "" in a column of words.
        unit: What follows a number.
        page, terminal, card: How each view shows the column.
    """

    title: str
    value: str | Callable[[Any], Value]
    form: str | Callable[[Any], str] = ""
    unit: str = ""
    page: Detail = "value"
    terminal: Detail = "hidden"
    card: Detail = "hidden"

    def texts(self, record: Any, detail: Detail) -> list[str]:
        """The one or two cells of a record."""
        read = attrgetter(self.value) if isinstance(self.value, str) else self.value
        value: Value = read(record)
        if isinstance(value, str):
            # Words fill the first of the two cells.
            return [value, ""] if detail == "bounds" else [value]
        form = self.form(record) if callable(self.form) else self.form
        if not isinstance(value, Interval):
            return [number(value, form, self.unit)]
        if detail == "both":
            return [with_interval(*value, form=form, unit=self.unit)]
        bounds = [interval(value.low, value.high, form)] if detail == "bounds" else []
        return [number(value.value, form, self.unit), *bounds]


View = Callable[[Column], Detail]
PAGE: View = attrgetter("page")
TERMINAL: View = attrgetter("terminal")
CARD: View = attrgetter("card")


class Row(NamedTuple):
    """A record, and the words that a renderer turns into a style (`slow`, `null`, `fastest`)."""

    record: Any
    emphasis: str = ""


class Head(NamedTuple):
    title: str
    is_number: bool
    definition: str = ""


class Line(NamedTuple):
    cells: list[str]
    emphasis: str


class Grid(NamedTuple):
    """A table as text."""

    heads: list[Head]
    lines: list[Line]


def grid(summary: Summary, columns: Sequence[Column], rows: Iterable[Row], view: View) -> Grid:
    """The text of a table in one view.

    Args:
        summary: Gives the confidence of the intervals, and the definitions.
        columns: All columns of the table.
        rows: The records.
        view: PAGE, TERMINAL or CARD.
    """
    shown = [(column, detail) for column in columns if (detail := view(column)) != "hidden"]
    heads = []
    for column, detail in shown:
        # Definitions are by field, or by title if a function reads the column.
        key = column.value if isinstance(column.value, str) else column.title
        heads.append(Head(column.title, bool(column.form), summary.definitions.get(key, "")))
        if detail == "bounds":
            heads.append(Head(f"{summary.confidence:.0%}", is_number=True))
    lines = [
        Line([text for c, detail in shown for text in c.texts(row.record, detail)], row.emphasis)
        for row in rows
    ]
    return Grid(heads, lines)

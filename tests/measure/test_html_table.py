"""Tables of the page: escaped, and a dash for what does not exist."""

from __future__ import annotations

import math

from distillspec.measure.html_table import interval, number, table


def test_words_stand_left_of_numbers_and_all_of_it_is_escaped() -> None:
    text = table(("<name>", "count"), [("null", ["a & b", "1 < 2"])])
    assert "<th>&lt;name&gt;</th>" in text
    assert '<th class="n">count</th>' in text
    assert '<tr class="null"><td>a &amp; b</td><td class="n">1 &lt; 2</td></tr>' in text


def test_a_number_that_does_not_exist_is_a_dash() -> None:
    assert [number(x) for x in (None, math.nan, math.inf, 2.345)] == ["–", "–", "–", "2.35"]
    assert interval(-0.5, math.nan, "+.1%") == "-50.0% to –"

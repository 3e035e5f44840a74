"""Tables of the page: escaped."""

from __future__ import annotations

from distillspec.report.html_table import table


def test_words_stand_left_of_numbers_and_all_of_it_is_escaped() -> None:
    text = table(("<name>", "count"), [("null", ["a & b", "1 < 2"])])
    assert "<th>&lt;name&gt;</th>" in text
    assert '<th class="n">count</th>' in text
    assert '<tr class="null"><td>a &amp; b</td><td class="n">1 &lt; 2</td></tr>' in text

"""Tables of drafts and cells: every foreign string escaped, every number formatted."""

from __future__ import annotations

import math
from dataclasses import replace

from distillspec.measure.summary.records import Summary
from distillspec.report import cell_sections
from tests.measure.columns import Columns
from tests.measured import a_cell


def test_rows_are_as_wide_as_their_heads(by_hand: Summary) -> None:
    for html in (
        cell_sections.cells(by_hand, by_hand.drafts()),
        cell_sections.comparisons(by_hand),
        cell_sections.baseline(by_hand),
        cell_sections.recommendations(by_hand.recommendation),
    ):
        assert len(set(Columns(html).counts)) == 1


def test_what_does_not_exist_is_a_dash(by_hand: Summary) -> None:
    odd = replace(by_hand, cells=[a_cell("distilled", 2, 1.0, tau=math.nan, break_even_alpha=None)])
    assert "nan" not in cell_sections.cells(odd, ["distilled"])
    assert "–" in cell_sections.cells(odd, ["distilled"])


def test_a_second_method_gets_its_column(by_hand: Summary) -> None:
    other = replace(by_hand, cells=[*by_hand.cells, a_cell("distilled", 2, 1.0, method="block")])
    assert ">method<" not in cell_sections.cells(by_hand, ["distilled"])
    assert ">block<" in cell_sections.cells(other, ["distilled"])


def test_categories_are_told_at_the_best_gamma_and_few_prompts_in_counts(
    broken_down: Summary,
) -> None:
    text = cell_sections.categories(broken_down)
    assert len(set(Columns(text).counts)) == 1
    assert text.count("<td>q &amp; a</td>") == 2  # of the one recommended cell a temperature
    assert "60.0%" in text and "50.0% to 70.0%" in text
    assert "60 of 100" in text and "85 in 25" in text
    assert "nan" not in text

"""Decoded texts on the page, token by token, and what is told of them."""

from __future__ import annotations

from distillspec.measure.summary.records import Summary
from distillspec.report import text_sections
from tests.measure.columns import Columns


def test_rows_are_as_wide_as_their_heads(by_hand: Summary) -> None:
    for html in (
        text_sections.quality(by_hand),
        text_sections.divergences(by_hand),
    ):
        assert len(set(Columns(html).counts)) == 1


def test_tokens_carry_their_fate_and_line_breaks_stay_visible(by_hand: Summary) -> None:
    text = text_sections.examples(by_hand.examples)
    for fate in ("accepted", "corrected", "bonus"):
        assert f'<span class="piece {fate}" title="{fate}">' in text
    assert '<span class="break">↵</span>\n' in text


def test_drafts_of_an_example_stand_before_and_after(by_hand: Summary) -> None:
    text = text_sections.examples(list(reversed(by_hand.examples)))
    assert text.index("undistilled, standard:") < text.index(">distilled, standard:")

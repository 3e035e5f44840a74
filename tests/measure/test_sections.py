"""What frames the page: the answer first, and every foreign string escaped."""

from __future__ import annotations

from distillspec.measure import sections, text_sections
from distillspec.measure.summary import Summary


def test_what_others_wrote_is_escaped(by_hand: Summary) -> None:
    text = text_sections.examples(by_hand.examples) + sections.environment(by_hand.environment)
    assert "<b>" not in text
    assert "<script>" not in text
    assert "&lt;b&gt;" in text
    assert "x &amp; y" in text


def test_the_tiles_show_the_distilled_draft_beside_the_undistilled(by_hand: Summary) -> None:
    text = sections.tiles(by_hand)
    assert text.count('class="tile"') == 2
    assert "undistilled 1.20×" in text

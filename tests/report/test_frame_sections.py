"""What frames the page: the answer first, and every foreign string escaped."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from distillspec.measure.summary.records import Summary
from distillspec.report import frame_sections, text_sections


def test_what_others_wrote_is_escaped(by_hand: Summary) -> None:
    text = text_sections.examples(by_hand.examples) + frame_sections.environment(
        by_hand.environment
    )
    assert "<b>" not in text
    assert "<script>" not in text
    assert "&lt;b&gt;" in text
    assert "x &amp; y" in text


def test_the_tiles_show_the_distilled_draft_beside_the_undistilled(by_hand: Summary) -> None:
    text = frame_sections.tiles(by_hand)
    assert text.count('class="tile"') == 2
    assert "undistilled 1.20×" in text


def test_a_tile_is_of_what_engines_run_and_names_the_faster_method(
    several_methods: Summary,
) -> None:
    text = frame_sections.tiles(several_methods)
    assert text.count('class="tile"') == 2
    assert "distilled, T = 1, standard, gamma 4" in text
    assert text.count("1.60×") == 2
    assert "fastest of all methods: block, gamma 8, 1.70×" in text
    assert "adaedl" not in text
    assert "(argmax drafts 0.600)" in text  # at T = 1 alone
    assert text.count("argmax") == 1


def test_a_tile_never_shows_nan(several_methods: Summary) -> None:
    cells = [replace(cell, tau=math.nan) for cell in several_methods.cells]
    odd = replace(several_methods, cells=cells, standard_methods=[])
    text = frame_sections.tiles(odd)
    assert "nan" not in text
    assert "tau not measured, expected tau not measured" in text


@pytest.mark.parametrize("odd", [7, None, [], {"target": 3}])
def test_a_summary_that_says_odd_things_of_its_machine_has_a_head(
    odd: Any, by_hand: Summary
) -> None:
    found = frame_sections.head(
        replace(by_hand, environment={"models": odd, "machine": odd}), "title"
    )
    assert "title" in found

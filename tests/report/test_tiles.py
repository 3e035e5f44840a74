"""The head of the page: the answer first."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from distillspec.measure.stats.intervals import NOTHING
from distillspec.measure.summary.records import Summary
from distillspec.report.tiles import facts, tiles


def test_the_tiles_show_the_distilled_draft_with_the_undistilled(by_hand: Summary) -> None:
    assert len(tiles(by_hand)) == 2
    assert all("undistilled 1.20×" in tile.lines[0] for tile in tiles(by_hand))


def test_a_tile_is_of_what_engines_run_and_names_the_faster_method(
    several_methods: Summary,
) -> None:
    at_zero, at_one = tiles(several_methods)
    assert at_one.label == "distilled, T = 1, standard, gamma 4"
    assert (at_zero.number, at_one.number) == ("1.60×", "1.60×")
    assert at_one.lines[-1] == "fastest of all methods: block, gamma 8, 1.70×"
    assert "(argmax drafts 0.600)" in at_one.lines[1]
    assert "argmax" not in at_zero.lines[1]


def test_a_tile_never_shows_nan(several_methods: Summary) -> None:
    cells = [replace(cell, tau=NOTHING) for cell in several_methods.cells]
    shown = tiles(replace(several_methods, cells=cells, standard_methods=[]))
    assert "tau not measured, expected tau not measured" in shown[0].lines[1]
    assert str(math.nan) not in " ".join(line for tile in shown for line in tile.lines)


@pytest.mark.parametrize("odd", [7, None, [], {"target": 3}])
def test_a_summary_with_an_odd_environment_has_facts(odd: Any, by_hand: Summary) -> None:
    shown = facts(replace(by_hand, environment={"models": odd, "machine": odd}))
    assert "24 prompts × 64 tokens" in shown

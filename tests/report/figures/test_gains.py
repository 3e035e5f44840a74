"""The figures show the numbers of the summary, and leave out missing ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from distillspec.measure.summary.records import Summary
from distillspec.report.figures.gains import differences, prediction, speedup_maps, tau_and_alpha
from distillspec.report.figures.positions import acceptance_by_position
from distillspec.report.figures.theme import DARK, LIGHT
from tests.measured import a_cell, a_comparison


def test_the_maps_name_every_cells_speedup_one_map_a_draft(by_hand: Summary) -> None:
    figure = speedup_maps(by_hand, LIGHT)
    assert figure is not None
    maps = figure.axes[:3]
    assert [panel.get_title(loc="left") for panel in maps] == [
        "undistilled",
        "control",
        "distilled",
    ]
    texts = [[text.get_text() for text in panel.texts] for panel in maps]
    assert texts[2] == ["1.40×", "1.60×", "1.40×", "1.60×"]


def test_twice_and_half_as_fast_are_equally_far_from_even(by_hand: Summary) -> None:
    cells = [a_cell("distilled", 2, 1.0, speedup=2.0), a_cell("distilled", 4, 1.0, speedup=0.5)]
    figure = speedup_maps(replace(by_hand, cells=cells), LIGHT)
    assert figure is not None
    image = figure.axes[0].images[0]
    assert image.norm(1.0) + image.norm(-1.0) == pytest.approx(1.0)
    assert image.norm(0.0) == pytest.approx(0.5)


def test_cells_that_were_not_measured_leave_gaps(by_hand: Summary) -> None:
    holes = replace(by_hand, cells=[*by_hand.cells[:3], a_cell("control", 4, 1.0)])
    for look in (LIGHT, DARK):
        for draw in (speedup_maps, tau_and_alpha, acceptance_by_position, prediction):
            assert draw(holes, look) is not None


def test_without_numbers_there_is_no_figure(by_hand: Summary) -> None:
    nothing = replace(
        by_hand, cells=[a_cell("distilled", 2, 1.0, speedup=math.nan)], comparisons=[]
    )
    assert speedup_maps(nothing, LIGHT) is None
    assert prediction(nothing, LIGHT) is None
    assert differences(nothing, LIGHT) is None


def test_a_difference_that_is_not_shown_is_grey(by_hand: Summary) -> None:
    figure = differences(by_hand, LIGHT)
    assert figure is not None
    colours = {line.get_color() for line in figure.axes[0].lines}
    assert {LIGHT.faint, LIGHT.drafts["distilled"]} <= colours


def test_expected_differences_stand_above_decoded_ones(by_hand: Summary) -> None:
    both = replace(
        by_hand, comparisons=[a_comparison(), a_comparison(quantity="expected tau", method=None)]
    )
    figure = differences(both, LIGHT)
    assert figure is not None
    labels = [label.get_text().split()[0] for label in figure.axes[0].get_yticklabels()]
    assert labels == ["decoded", "expected"]  # the axis counts from below


def test_of_several_methods_the_one_of_engines_is_drawn_and_named(
    several_methods: Summary,
) -> None:
    maps = speedup_maps(several_methods, LIGHT)
    assert maps is not None
    assert [panel.get_title(loc="left") for panel in maps.axes[:3]] == [
        "undistilled, standard",
        "control, standard",
        "distilled, standard",
    ]
    assert [text.get_text() for text in maps.axes[2].texts] == ["1.40×", "1.60×"] * 2
    lines = tau_and_alpha(several_methods, LIGHT)
    assert lines is not None
    assert lines.axes[1].get_title(loc="left") == "T = 1, standard"
    assert [round(tick) for tick in lines.axes[1].get_xticks()] == [2, 4]
    positions = acceptance_by_position(several_methods, LIGHT)
    assert positions is not None
    assert positions.axes[0].get_title(loc="left") == "T = 0, standard, gamma = 4"
    assert len(positions.axes[0].lines) == 3
    named = differences(several_methods, LIGHT)
    assert named is not None
    assert "standard" in named.axes[0].get_yticklabels()[0].get_text()

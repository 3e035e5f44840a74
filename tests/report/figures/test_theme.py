"""Shared manners of the figures."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from distillspec.report.figures.theme import (
    DARK,
    LIGHT,
    Theme,
    colour,
    degrees,
    ordered,
    plain_axes,
    with_intervals,
)


def luminance(name: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    channels = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(name)]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=lambda look: look.name)
def test_text_and_lines_can_be_read_on_both_pages(look: Theme) -> None:
    assert contrast(look.ink, look.page) > 7.0
    assert contrast(look.faint, look.page) > 4.5
    assert all(contrast(line, look.page) >= 3.0 for line in look.drafts.values())


def test_drafts_stand_before_control_after_and_strangers_last() -> None:
    assert ordered(["distilled", "other", "undistilled", "control"]) == [
        "undistilled",
        "control",
        "distilled",
        "other",
    ]


def test_a_stranger_has_a_colour_too() -> None:
    assert colour("other", LIGHT) == LIGHT.ink


def test_degrees_are_short() -> None:
    assert [degrees(t) for t in (0.0, 0.5, 1.0)] == ["T = 0", "T = 0.5", "T = 1"]


def test_an_interval_that_does_not_hold_its_value_is_still_drawn() -> None:
    panel = Figure().subplots()
    with_intervals(panel, [1], [(2.0, 2.1, 2.2)], "distilled", LIGHT, line=True)
    plain_axes(panel, LIGHT, "x", "y")
    assert panel.get_xlabel() == "x"

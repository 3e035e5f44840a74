"""The figures show what the summary says, and leave out what there is not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread

from distillspec.measure.breakdown import FEW
from distillspec.measure.drawing import DARK, LIGHT
from distillspec.measure.figures import (
    acceptance_by_context,
    acceptance_by_position,
    differences,
    prediction,
    save_figures,
    speedup_maps,
    tau_and_alpha,
)
from distillspec.measure.summary import Summary
from tests.measure.conftest import a_cell, a_comparison


def test_every_figure_is_written_light_and_dark(by_hand: Summary, tmp_path: Path) -> None:
    log = tmp_path / "metrics.csv"
    log.write_text("step,train/divergence_nats\n1,2.0\n2,1.0\n")
    written = save_figures(by_hand, {"distilled": log}, tmp_path / "figures")
    assert set(written) == {"speedup", "tau", "differences", "positions", "prediction", "training"}
    for light, dark in written.values():
        assert imread(light).shape == imread(dark).shape
        assert imread(light)[0, 0, :3].mean() > 0.9
        assert imread(dark)[0, 0, :3].mean() < 0.2


def test_without_logs_there_are_no_training_curves(by_hand: Summary, tmp_path: Path) -> None:
    assert "training" not in save_figures(by_hand, {}, tmp_path)


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


def test_contexts_are_drawn_where_there_are_prompts_enough(
    by_hand: Summary, broken_down: Summary, tmp_path: Path
) -> None:
    assert acceptance_by_context(by_hand, LIGHT) is None
    figure = acceptance_by_context(broken_down, LIGHT)
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["64 to 127", "128 to 255"]
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "T = 0, gamma = 4",
        "T = 1, gamma = 4",
    ]
    assert "contexts" in save_figures(broken_down, {}, tmp_path)
    gap = [one for one in broken_down.contexts if one.from_tokens != 128]
    gap += [replace(one, from_tokens=256, to_tokens=512) for one in gap if one.prompts >= FEW]
    cells = [*broken_down.cells, a_cell("distilled", 8, 1.0, method="adaedl")]
    figure = acceptance_by_context(replace(broken_down, contexts=gap, cells=cells), LIGHT)
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["64 to 127", "128 to 255", "256 to 511"]
    assert figure.axes[0].get_title(loc="left") == "T = 0, standard, gamma = 4"

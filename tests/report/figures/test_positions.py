"""Bins and blocks are drawn where there are prompts enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distillspec.measure.summary.breakdown import FEW
from distillspec.measure.summary.records import Summary
from distillspec.report.figures.positions import acceptance_by_context
from distillspec.report.figures.save import save_figures
from distillspec.report.figures.theme import LIGHT
from tests.measured import a_cell


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

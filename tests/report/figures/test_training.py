"""Training curves from CSV logs with any rows and columns."""

from __future__ import annotations

from pathlib import Path

from distillspec.report.figures.theme import LIGHT
from distillspec.report.figures.training import read_curves, training_curves

LOG = """step,train/divergence_nats,train/alpha,probe/alpha,probe/tau_tokens
1,1.5,0.5,,
2,1.25,0.55,0.5,1.9
,9,9,9,9
3,1.0,nan,,
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_columns_become_points_and_empty_fields_none(tmp_path: Path) -> None:
    curves = read_curves({"distilled": write(tmp_path / "metrics.csv", LOG)})
    columns = curves["distilled"]
    assert columns["train/divergence_nats"] == [(1.0, 1.5), (2.0, 1.25), (3.0, 1.0)]
    assert columns["probe/tau_tokens"] == [(2.0, 1.9)]
    assert columns["train/alpha"] == [(1.0, 0.5), (2.0, 0.55)]


def test_absent_and_empty_logs_are_passed_over(tmp_path: Path) -> None:
    logs = {"a": tmp_path / "absent.csv", "b": write(tmp_path / "empty.csv", "")}
    assert read_curves(logs) == {}
    assert training_curves({}, LIGHT) is None


def test_a_panel_is_drawn_for_each_quantity_that_was_logged(tmp_path: Path) -> None:
    figure = training_curves(read_curves({"distilled": write(tmp_path / "m.csv", LOG)}), LIGHT)
    assert figure is not None
    assert len(figure.axes) == 3
    only_loss = {"control": {"train/divergence_nats": [(1.0, 2.0), (2.0, 1.0)]}}
    two_units = {**only_loss, "distilled": {"train/divergence": [(1.0, 0.5), (2.0, 0.25)]}}
    figure = training_curves(two_units, LIGHT)
    assert figure is not None
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "loss (nats per token)",
        "loss (not in nats)",
    ]
    drawn = [[len(line.get_xdata()) for line in panel.lines] for panel in figure.axes]
    assert drawn == [[2, 0], [0, 2]]  # a run's line is empty where it has no such loss
    figure = training_curves(only_loss, LIGHT)
    assert figure is not None
    assert len(figure.axes) == 1

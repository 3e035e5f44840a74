"""Every figure that has data is written, and what there is not is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matplotlib.image import imread

from distillspec.measure.summary.records import Summary
from distillspec.report.figures.save import save_figures


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


def test_a_name_with_dollar_signs_is_no_formula(by_hand: Summary, tmp_path: Path) -> None:
    odd = replace(by_hand, cells=[replace(one, draft="$\\frac{$") for one in by_hand.cells])
    assert "speedup" in save_figures(odd, {}, tmp_path)

"""Training curves from the CSV logs of the runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from distillspec.report.figures.theme import MARKERS, Theme, colour, legend, plain_axes, titled
from distillspec.runtime.plain_files import BoundedText, read_csv

Curves = dict[str, dict[str, list[tuple[float, float]]]]
_PANELS = (
    ("loss (nats per token)", ("train/divergence_nats",)),
    ("loss (not in nats)", ("train/divergence",)),
    ("alpha", ("train/alpha", "probe/alpha")),
    ("expected tau of the probe (tokens per forward)", ("probe/tau_tokens",)),
)


def read_curves(metrics_csv: Mapping[str, Path]) -> Curves:
    """CSV logs as run -> column -> [(step, value)]. Runs without a log are left out."""
    curves: Curves = {}
    for run, path in metrics_csv.items():
        if not path.exists():
            continue
        columns: dict[str, list[tuple[float, float]]] = {}
        for row in read_csv(BoundedText(path, "the log of this training", "move the file away")):
            for name, value in row.items():
                if name not in ("step", "epoch") and "step" in row and math.isfinite(value):
                    columns.setdefault(name, []).append((row["step"], value))
        if columns:
            curves[run] = columns
    return curves


def training_curves(curves: Curves, look: Theme) -> Figure | None:
    """Loss, alpha and expected tau over the steps, one line per run. Markers are probes."""
    panels = [
        (title, names)
        for title, names in _PANELS
        if any(name in columns for columns in curves.values() for name in names)
    ]
    if not panels:
        return None
    figure = Figure(figsize=(3.3 * len(panels) + 0.4, 2.9), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (title, names) in zip(axes, panels, strict=True):
        for run, columns in curves.items():
            for name in names:
                points = columns.get(name, [])
                is_probe = name.startswith("probe/")
                panel.plot(
                    [step for step, _ in points],
                    [value for _, value in points],
                    color=colour(run, look),
                    linewidth=1.6 if is_probe else 1.0,
                    alpha=1.0 if is_probe or len(names) == 1 else 0.4,
                    marker=MARKERS.get(run, "^") if is_probe else None,
                    markersize=4,
                    # One legend entry for each run: its probe, or its only line.
                    label=run if is_probe or len(names) == 1 else None,
                )
        plain_axes(panel, look, "step", "")
        titled(panel, title, look)
    legend(figure, axes[0], look)
    return figure

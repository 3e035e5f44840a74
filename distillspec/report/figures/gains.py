"""Figures of a draft's gain: speed-up, tau and alpha, differences, prediction."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from distillspec.measure.summary.cells import Cell
from distillspec.measure.summary.records import Summary
from distillspec.report.figures.theme import (
    MARKERS,
    Theme,
    colour,
    degrees,
    legend,
    named,
    ordered,
    plain_axes,
    titled,
    with_intervals,
)


def speedup_maps(summary: Summary, look: Theme) -> Figure | None:
    """Measured speed-up over gamma x temperature: one map per draft, one colour scale for all.

    The maps show one method, and name it if the evaluation has several.
    """
    method, shown = summary.shown_method, summary.of_shown_method()
    drafts = ordered(list(dict.fromkeys(cell.draft for cell in shown)))
    gammas, temperatures = sorted({cell.gamma for cell in shown}), summary.temperatures()
    known = [cell.speedup.value for cell in shown if math.isfinite(cell.speedup.value)]
    if not known:
        return None
    # Ratios: twice as fast and half as fast are equally far from 1.
    reach = max(0.1, *(abs(math.log2(value)) for value in known))
    norm = Normalize(-reach, reach)
    colours = LinearSegmentedColormap.from_list("speed", [look.slow, look.even, look.fast])
    width = 1.5 + len(drafts) * max(2.2, 0.78 * len(gammas))
    figure = Figure(figsize=(width, 1.5 + 0.72 * len(temperatures)), layout="constrained")
    panels = figure.subplots(1, len(drafts), squeeze=False)[0]
    image = None
    for panel, draft in zip(panels, drafts, strict=True):
        grid = [[_speedup(summary, draft, method, g, t) for g in gammas] for t in temperatures]
        image = panel.imshow(
            [[math.log2(value) for value in values] for values in grid],
            cmap=colours,
            norm=norm,
            aspect="auto",
        )
        _write_values(panel, grid, colours, norm)
        titled(panel, f"{draft}{named(summary)}", look)
        panel.set_xticks(range(len(gammas)), [str(g) for g in gammas])
        panel.set_yticks(range(len(temperatures)), [degrees(t) for t in temperatures])
        if panel is not panels[0]:
            panel.set_yticklabels([])
        panel.set_xlabel("gamma (tokens drafted per block)", color=look.faint, fontsize=9)
        panel.tick_params(colors=look.ink, length=0, labelsize=9)
        for spine in panel.spines.values():
            spine.set_visible(False)
        # Minor grid lines separate the squares.
        panel.set_xticks([g + 0.5 for g in range(len(gammas) - 1)], minor=True)
        panel.set_yticks([t + 0.5 for t in range(len(temperatures) - 1)], minor=True)
        panel.grid(which="minor", color=look.page, linewidth=2)
        panel.tick_params(which="minor", length=0)
    assert image is not None
    bar = figure.colorbar(image, ax=list(panels), shrink=0.9, pad=0.015, aspect=12)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=look.faint, length=0, labelsize=8)
    ticks = [-reach, -reach / 2, 0.0, reach / 2, reach]
    bar.set_ticks(ticks, labels=[f"{2**tick:.2f}×" for tick in ticks])
    bar.set_label("speed-up", color=look.faint, fontsize=9)
    return figure


def _write_values(panel: Axes, grid: list[list[float]], colours: Colormap, norm: Normalize) -> None:
    """Write every speed-up on its square, legible on its colour; the best of a row is bold."""
    for row, values in enumerate(grid):
        best = max((value for value in values if math.isfinite(value)), default=math.nan)
        for column, value in enumerate(values):
            if math.isfinite(value):
                red, green, blue, _ = colours(norm(math.log2(value)))
                # Brightness as it is perceived (Rec. 601 weights).
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                panel.text(
                    column,
                    row,
                    f"{value:.2f}×",
                    ha="center",
                    va="center",
                    fontsize=9.5,
                    fontweight="bold" if value == best else "normal",
                    color="#ffffff" if dark else "#1c2330",
                )


def _speedup(summary: Summary, draft: str, method: str, gamma: int, temperature: float) -> float:
    cell = summary.cell(draft, method, gamma, temperature)
    return math.nan if cell is None else cell.speedup.value


def tau_and_alpha(summary: Summary, look: Theme) -> Figure | None:
    """tau over gamma with intervals, one panel per temperature; alpha of every draft at the right.

    tau is of one method, which the panels name if the evaluation has several.
    """
    temperatures, drafts = summary.temperatures(), ordered(summary.drafts())
    method = summary.shown_method
    gammas = sorted({cell.gamma for cell in summary.of_shown_method()})
    count = len(temperatures)
    figure = Figure(figsize=(3.0 * count + 3.0, 3.1), layout="constrained")
    panels = figure.subplots(1, count + 1, squeeze=False)[0]
    # 1. tau, one panel for each temperature.
    for panel, temperature in zip(panels, temperatures, strict=False):
        for shift, draft in enumerate(drafts):
            cells = _series(summary, draft, method, temperature)
            if cells:
                # Drafts stand side by side at each gamma.
                positions = [c.gamma + 0.06 * (shift - (len(drafts) - 1) / 2) for c in cells]
                with_intervals(
                    panel,
                    positions,
                    [c.tau for c in cells],
                    draft,
                    look,
                    line=True,
                )
        plain_axes(panel, look, "gamma", "tau (tokens per target forward)")
        panel.set_xticks(gammas)
        titled(panel, f"{degrees(temperature)}{named(summary)}", look)
        if panel is not panels[0]:
            panel.set_ylabel("")
    # 2. One scale for all of these panels; tau is at least 1.
    highest = max(panel.get_ylim()[1] for panel in panels[:-1])
    for panel in panels[:-1]:
        panel.set_ylim(1.0, highest)
    # 3. alpha, all temperatures in the last panel.
    last = panels[-1]
    for shift, draft in enumerate(drafts):
        alphas, positions = [], []
        for index, temperature in enumerate(temperatures):
            cells = [c for c in summary.cells if (c.draft, c.temperature) == (draft, temperature)]
            if cells:
                # alpha does not depend on method or gamma: any cell has it.
                alphas.append(cells[0].alpha)
                positions.append(index + 0.16 * (shift - (len(drafts) - 1) / 2))
        with_intervals(last, positions, alphas, draft, look, line=False)
    plain_axes(last, look, "", "alpha")
    last.set_xticks(range(count), [degrees(t) for t in temperatures])
    last.set_xlim(-0.5, count - 0.5)
    titled(last, "acceptance, sampled drafts", look)
    legend(figure, panels[0], look)
    return figure


def _series(summary: Summary, draft: str, method: str, temperature: float) -> list[Cell]:
    cells = (summary.cell(draft, method, gamma, temperature) for gamma in summary.gammas())
    return [cell for cell in cells if cell is not None]


def differences(summary: Summary, look: Theme) -> Figure | None:
    """Paired relative difference in tau with its interval; coloured if a verdict shows it.

    First the expected tau on the target's texts, then the decoded tau, which has sampling noise.
    """
    kinds = {"expected tau": "expected", "tau": "decoded"}
    shown = [
        comparison
        for kind in kinds
        for comparison in summary.comparisons
        if comparison.quantity == kind
        and math.isfinite(comparison.relative.low + comparison.relative.high)
    ]
    if not shown:
        return None
    several = len(summary.methods()) > 1
    figure = Figure(figsize=(7.6, 0.9 + 0.27 * len(shown)), layout="constrained")
    panel = figure.subplots()
    labels = []
    # Rows are numbered from the bottom.
    for row, comparison in enumerate(reversed(shown)):
        stands = comparison.verdict in ("higher", "lower")
        paint = colour(comparison.draft, look) if stands else look.faint
        value, low, high = (100 * x for x in comparison.relative)
        panel.plot([low, high], [row, row], color=paint, linewidth=2.2, solid_capstyle="round")
        panel.plot([value], [row], marker="o", markersize=5.5, color=paint)
        kind = kinds[comparison.quantity]
        method = f"{comparison.method}   " if several and comparison.method is not None else ""
        where = f"{degrees(comparison.temperature)}   {method}gamma {comparison.gamma}"
        labels.append(f"{kind}   vs {comparison.against}   {where}")
    panel.axvline(0.0, color=look.ink, linewidth=1.0)
    plain_axes(panel, look, f"difference in tau of the {shown[0].draft} draft, percent", "")
    panel.grid(axis="y", visible=False)
    panel.set_yticks(range(len(shown)), labels, fontsize=8.5)
    panel.set_ylim(-0.7, len(shown) - 0.3)
    return figure


def prediction(summary: Summary, look: Theme) -> Figure | None:
    """Measured against predicted speed-up. On the line both agree."""
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    panel = figure.subplots()
    shown = [c for c in summary.cells if math.isfinite(c.predicted_speedup + c.speedup.value)]
    if not shown:
        return None
    for draft in ordered(summary.drafts()):
        cells = [c for c in shown if c.draft == draft]
        if cells:
            panel.plot(
                [c.predicted_speedup for c in cells],
                [c.speedup.value for c in cells],
                linestyle="none",
                marker=MARKERS.get(draft, "^"),
                markersize=5.5,
                color=colour(draft, look),
                alpha=0.9,
                label=draft,
            )
    numbers = [x for c in shown for x in (c.predicted_speedup, c.speedup.value)]
    low, high = min(numbers) - 0.05, max(numbers) + 0.05
    panel.plot([low, high], [low, high], color=look.faint, linewidth=1.0, linestyle=(0, (4, 3)))
    plain_axes(panel, look, "predicted speed-up", "measured speed-up")
    legend(figure, panel, look)
    return figure

"""The look of the report's figures on a light and a dark page, without global matplotlib state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.records import Summary


class Theme(NamedTuple):
    """Colours of one page background; text and lines must be legible on `page`."""

    name: str
    page: str
    ink: str
    faint: str
    grid: str
    drafts: dict[str, str]
    slow: str
    even: str
    fast: str


LIGHT = Theme(
    name="light",
    page="#ffffff",
    ink="#1c2330",
    faint="#5d6778",
    grid="#e3e7ee",
    drafts={"undistilled": "#7b8494", "control": "#c77f12", "distilled": "#1f63d6"},
    slow="#c2572b",
    even="#f3f4f7",
    fast="#1f63d6",
)
DARK = Theme(
    name="dark",
    page="#171b22",
    ink="#e6e9ef",
    faint="#9aa4b5",
    grid="#2c333f",
    drafts={"undistilled": "#939db0", "control": "#e0a040", "distilled": "#6aa2ff"},
    slow="#d8743f",
    even="#262c36",
    fast="#3f7fe8",
)
MARKERS = {"undistilled": "o", "control": "s", "distilled": "D"}
_ORDER = ("undistilled", "control", "distilled")


def ordered(drafts: Sequence[str]) -> list[str]:
    """Undistilled, control, distilled; other names come last."""
    known = [name for name in _ORDER if name in drafts]
    return known + [name for name in drafts if name not in _ORDER]


def degrees(temperature: float) -> str:
    return f"T = {temperature:g}"


def named(summary: Summary) -> str:
    """The method for a title, if several methods were measured and the figure shows one."""
    return f", {summary.shown_method}" if len(summary.methods()) > 1 else ""


def colour(draft: str, look: Theme) -> str:
    return look.drafts.get(draft, look.ink)


def with_intervals(
    panel: Axes,
    positions: Sequence[float],
    intervals: Sequence[Interval],
    draft: str,
    look: Theme,
    *,
    line: bool,
) -> None:
    values = [value for value, _, _ in intervals]
    # An unknown bound (nan) becomes 0; matplotlib refuses negative lengths.
    below = [max(0.0, value - low) for value, low, _ in intervals]
    above = [max(0.0, high - value) for value, _, high in intervals]
    panel.errorbar(
        positions,
        values,
        yerr=[below, above],
        marker=MARKERS.get(draft, "^"),
        markersize=5,
        linewidth=1.8,
        elinewidth=1.2,
        capsize=2.5,
        color=colour(draft, look),
        label=draft,
        linestyle="-" if line else "none",
    )


def plain_axes(panel: Axes, look: Theme, across: str, up: str) -> None:
    panel.set_facecolor(look.page)
    panel.set_xlabel(across, color=look.faint, fontsize=9)
    panel.set_ylabel(up, color=look.faint, fontsize=9)
    panel.tick_params(colors=look.ink, length=0, labelsize=8.5)
    panel.grid(color=look.grid, linewidth=0.8)
    panel.set_axisbelow(True)
    for side, spine in panel.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(look.grid)


def titled(panel: Axes, title: str, look: Theme) -> None:
    panel.set_title(title, color=look.ink, fontsize=10, fontweight="bold", loc="left")


def legend(figure: Figure, panel: Axes, look: Theme) -> None:
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=max(1, len(labels)),
        frameon=False,
        fontsize=9,
        labelcolor=look.ink,
    )

"""Figures of what choosers and stop rules did: regret, shares of the arms, entropies of drafts."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillspec.measure.summary.records import Regret, Summary
from distillspec.measure.timed.audit import AuditedRound
from distillspec.report.figures.theme import Theme, degrees, legend, ordered, plain_axes, titled

_PERIODS = 30  # parts of the rounds in which an arm's share is told
_FEWEST = 8  # rounds of a part
_BINS = 30


def shown_draft(drafts: Sequence[str]) -> str:
    """The figures show one draft: the distilled one, or the last."""
    return "distilled" if "distilled" in drafts else ordered(drafts)[-1]


def regret_curves(summary: Summary, look: Theme) -> Figure | None:
    """Cumulative regret over the prompts, a row a quantity; dotted: the mean of the arms."""
    if not summary.regrets:
        return None
    draft = shown_draft([one.draft for one in summary.regrets])
    here = [one for one in summary.regrets if one.draft == draft]
    temperatures = sorted({one.temperature for one in here})
    quantities = list(dict.fromkeys(one.quantity for one in here))
    methods = list(dict.fromkeys(one.method for one in here))
    width, height = 3.2 * len(temperatures) + 0.6, 2.5 * len(quantities) + 0.4
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(quantities), len(temperatures), squeeze=False)
    for panels, quantity in zip(grid, quantities, strict=True):
        for panel, temperature in zip(panels, temperatures, strict=True):
            wanted = [r for r in here if (r.quantity, r.temperature) == (quantity, temperature)]
            for one in wanted:
                _curve(panel, one, _paint(methods.index(one.method), len(methods)))
            panel.axhline(0.0, color=look.ink, linewidth=1.0)
            plain_axes(panel, look, "prompts", f"{quantity} beyond the best arm")
            titled(panel, degrees(temperature), look)
            if panel is not panels[0]:
                panel.set_ylabel("")
    legend(figure, grid[0][0], look)
    return figure


def _curve(panel: Axes, one: Regret, paint: tuple[float, float, float, float]) -> None:
    prompts = range(1, len(one.regret) + 1)
    panel.plot(prompts, one.regret, color=paint, linewidth=1.8, label=one.method)
    panel.plot(
        prompts,
        one.mean_regret,
        color=paint,
        linewidth=1.3,
        linestyle=":",
        label=f"mean arm of {one.method}",
    )


def arm_shares(rounds: Sequence[AuditedRound], look: Theme) -> Figure | None:
    """Who decoded, over time: a panel a method that had a choice and a temperature."""
    several: dict[tuple[str, float], list[str]] = {}
    for one in _of_shown_draft(rounds):
        several.setdefault((one.method, one.temperature), []).append(one.arm)
    several = {place: arms for place, arms in several.items() if len(set(arms)) > 1}
    if not several:
        return None
    methods = list(dict.fromkeys(method for method, _ in several))
    temperatures = sorted({temperature for _, temperature in several})
    names = sorted({arm for arms in several.values() for arm in arms}, key=_by_name_and_gamma)
    width, height = 3.2 * len(temperatures) + 0.6, 2.2 * len(methods) + 0.7
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(methods), len(temperatures), squeeze=False, sharey=True)
    for panels, method in zip(grid, methods, strict=True):
        for panel, temperature in zip(panels, temperatures, strict=True):
            arms = several.get((method, temperature), [])
            ends, shares = shares_by_period(arms, names)
            if arms:
                panel.stackplot(
                    ends,
                    *shares,
                    colors=[_paint(i, len(names)) for i in range(len(names))],
                    labels=names,
                )
            plain_axes(panel, look, "rounds", "share of rounds")
            titled(panel, f"{method}, {degrees(temperature)}", look)
            panel.set_ylim(0.0, 1.0)
            if panel is not panels[0]:
                panel.set_ylabel("")
    full = next(panel for panel in grid.flat if panel.get_legend_handles_labels()[1])
    legend(figure, full, look)
    return figure


def shares_by_period(
    arms: Sequence[str], names: Sequence[str]
) -> tuple[list[int], list[list[float]]]:
    """Rounds in their order, by arm -> the ends of equal parts of them, and each name's shares."""
    periods = max(1, min(_PERIODS, len(arms) // _FEWEST))
    ends = [round(len(arms) * (i + 1) / periods) for i in range(periods)]
    parts = [arms[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return ends, [[part.count(name) / max(1, len(part)) for part in parts] for name in names]


def entropy_histograms(rounds: Sequence[AuditedRound], look: Theme) -> Figure | None:
    """How unsure the draft was of what was kept, and of the first token that was not."""
    shown = _of_shown_draft(rounds)
    temperatures = sorted({one.temperature for one in shown})
    found = {t: kept_and_rejected([r for r in shown if r.temperature == t]) for t in temperatures}
    found = {t: both for t, both in found.items() if any(both)}
    if not found:
        return None
    most = max(max([*kept, *rejected]) for kept, rejected in found.values()) or 1.0
    edges = [most * i / _BINS for i in range(_BINS + 1)]
    figure = Figure(figsize=(3.2 * len(found) + 0.6, 2.9), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for panel, (temperature, both) in zip(panels, found.items(), strict=True):
        for values, paint, name in zip(
            both, (look.fast, look.slow), ("accepted", "first rejected"), strict=True
        ):
            panel.hist(
                values,
                bins=edges,
                weights=[1.0 / max(1, len(values))] * len(values),
                histtype="step",
                linewidth=1.8,
                color=paint,
                label=name,
            )
        plain_axes(panel, look, "entropy of the draft, nats", "share of these tokens")
        titled(panel, degrees(temperature), look)
        if panel is not panels[0]:
            panel.set_ylabel("")
    legend(figure, panels[0], look)
    return figure


def kept_and_rejected(rounds: Sequence[AuditedRound]) -> tuple[list[float], list[float]]:
    """Entropies at positions that were kept, and at the first of each round that was not.

    Of rounds that drafted one sequence: of several, a position has a mean. What stands behind a
    rejected token was not judged.
    """
    chains = [one for one in rounds if len(one.entropies) == one.drafted]
    kept = [entropy for one in chains for entropy in one.entropies[: one.accepted]]
    rejected = [one.entropies[one.accepted] for one in chains if one.accepted < one.drafted]
    return kept, rejected


def _of_shown_draft(rounds: Sequence[AuditedRound]) -> list[AuditedRound]:
    if not rounds:
        return []
    draft = shown_draft(list(dict.fromkeys(one.draft for one in rounds)))
    return [one for one in rounds if one.draft == draft]


def _by_name_and_gamma(arm: str) -> tuple[str, int]:
    name, _, gamma = arm.partition("@")
    return name, int(gamma)


def _paint(number: int, of: int) -> tuple[float, float, float, float]:
    """A colour legible on both pages."""
    red, green, blue, opacity = colormaps["turbo"](0.1 + 0.8 * number / max(1, of - 1))
    return red, green, blue, opacity

"""Figures of choosers and stop rules: regret, shares of the arms, entropies of drafts."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillspec.measure.summary.records import Regret, Summary
from distillspec.measure.timed.audit import AuditedRound
from distillspec.report.figures.theme import Theme, degrees, legend, ordered, plain_axes, titled

_PERIODS = 30  # parts of the rounds for which arms' shares are shown
_FEWEST = 8  # rounds per part
_BINS = 30


def shown_draft(drafts: Sequence[str]) -> str:
    """The draft that the figures show: the distilled draft, or the last."""
    return "distilled" if "distilled" in drafts else ordered(drafts)[-1]


def regret_curves(summary: Summary, look: Theme) -> Figure | None:
    """Cumulative regret over the prompts, one row per quantity; dotted: the mean of the arms."""
    if not summary.regrets:
        return None
    draft = shown_draft([regret.draft for regret in summary.regrets])
    shown = [regret for regret in summary.regrets if regret.draft == draft]
    temperatures = sorted({regret.temperature for regret in shown})
    quantities = list(dict.fromkeys(regret.quantity for regret in shown))
    methods = list(dict.fromkeys(regret.method for regret in shown))
    width, height = 3.2 * len(temperatures) + 0.6, 2.5 * len(quantities) + 0.4
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(quantities), len(temperatures), squeeze=False)
    for panels, quantity in zip(grid, quantities, strict=True):
        for panel, temperature in zip(panels, temperatures, strict=True):
            wanted = [r for r in shown if (r.quantity, r.temperature) == (quantity, temperature)]
            for regret in wanted:
                _curve(panel, regret, _paint(methods.index(regret.method), len(methods)))
            panel.axhline(0.0, color=look.ink, linewidth=1.0)
            plain_axes(panel, look, "prompts", f"{quantity} beyond the best arm")
            titled(panel, degrees(temperature), look)
            if panel is not panels[0]:
                panel.set_ylabel("")
    legend(figure, grid[0][0], look)
    return figure


def _curve(panel: Axes, regret: Regret, paint: tuple[float, float, float, float]) -> None:
    prompts = range(1, len(regret.regret) + 1)
    panel.plot(prompts, regret.regret, color=paint, linewidth=1.8, label=regret.method)
    panel.plot(
        prompts,
        regret.mean_regret,
        color=paint,
        linewidth=1.3,
        linestyle=":",
        label=f"mean arm of {regret.method}",
    )


def arm_shares(rounds: Sequence[AuditedRound], look: Theme) -> Figure | None:
    """Which arm decoded, over time: one panel per method with a choice and temperature."""
    several: dict[tuple[str, float], list[str]] = {}
    for audited in _of_shown_draft(rounds):
        several.setdefault((audited.method, audited.temperature), []).append(audited.arm)
    several = {key: arms for key, arms in several.items() if len(set(arms)) > 1}
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
    # Some panels may be empty. The legend comes from one with data.
    full = next(panel for panel in grid.flat if panel.get_legend_handles_labels()[1])
    legend(figure, full, look)
    return figure


def shares_by_period(
    arms: Sequence[str], names: Sequence[str]
) -> tuple[list[int], list[list[float]]]:
    """Shares of the arms over time.

    Args:
        arms: The arm of each round, in order.
        names: The arms to show.

    Returns:
        The ends of equal parts of the rounds, and each name's share of every part.
    """
    periods = max(1, min(_PERIODS, len(arms) // _FEWEST))
    ends = [round(len(arms) * (i + 1) / periods) for i in range(periods)]
    # `strict=False`: the last start has no end.
    parts = [arms[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return ends, [[part.count(name) / max(1, len(part)) for part in parts] for name in names]


def entropy_histograms(rounds: Sequence[AuditedRound], look: Theme) -> Figure | None:
    """Entropy of the draft at accepted tokens, and at the first rejected token of a round."""
    shown = _of_shown_draft(rounds)
    temperatures = sorted({audited.temperature for audited in shown})
    entropies = {
        t: kept_and_rejected([r for r in shown if r.temperature == t]) for t in temperatures
    }
    entropies = {t: both for t, both in entropies.items() if any(both)}
    if not entropies:
        return None
    # If all entropies are 0, bins still need a width.
    highest = max(max([*accepted, *rejected]) for accepted, rejected in entropies.values()) or 1.0
    edges = [highest * i / _BINS for i in range(_BINS + 1)]
    figure = Figure(figsize=(3.2 * len(entropies) + 0.6, 2.9), layout="constrained")
    panels = figure.subplots(1, len(entropies), squeeze=False, sharey=True)[0]
    for panel, (temperature, both) in zip(panels, entropies.items(), strict=True):
        for values, paint, name in zip(
            both, (look.fast, look.slow), ("accepted", "first rejected"), strict=True
        ):
            panel.hist(
                values,
                bins=edges,
                # Shares, because the two groups differ in size.
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
    """Entropies at accepted positions, and at the first rejected position of each round.

    Only rounds that drafted a single sequence count: with several, a position has a mean. Tokens
    after a rejected token were not verified.
    """
    chains = [audited for audited in rounds if len(audited.entropies) == audited.drafted]
    accepted = [entropy for audited in chains for entropy in audited.entropies[: audited.accepted]]
    rejected = [
        audited.entropies[audited.accepted]
        for audited in chains
        if audited.accepted < audited.drafted
    ]
    return accepted, rejected


def _of_shown_draft(rounds: Sequence[AuditedRound]) -> list[AuditedRound]:
    if not rounds:
        return []
    draft = shown_draft(list(dict.fromkeys(audited.draft for audited in rounds)))
    return [audited for audited in rounds if audited.draft == draft]


def _by_name_and_gamma(arm: str) -> tuple[str, int]:
    name, _, gamma = arm.partition("@")
    return name, int(gamma)


def _paint(number: int, of: int) -> tuple[float, float, float, float]:
    """A colour that is legible on light and dark pages."""
    red, green, blue, opacity = colormaps["turbo"](0.1 + 0.8 * number / max(1, of - 1))
    return red, green, blue, opacity

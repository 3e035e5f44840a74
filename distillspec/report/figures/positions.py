"""Figures of acceptance by position in the block and in the context."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

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


def acceptance_by_position(summary: Summary, look: Theme) -> Figure | None:
    """Share of drafts that are accepted at each position, at the largest gamma."""
    temperatures, method = summary.temperatures(), summary.shown_method
    gamma = max(cell.gamma for cell in summary.of_shown_method())
    figure = Figure(figsize=(3.1 * len(temperatures) + 0.4, 2.9), layout="constrained")
    panels = figure.subplots(1, len(temperatures), squeeze=False, sharey=True)[0]
    for panel, temperature in zip(panels, temperatures, strict=True):
        for draft in ordered(summary.drafts()):
            cell = summary.cell(draft, method, gamma, temperature)
            if cell is not None:
                panel.plot(
                    range(1, gamma + 1),
                    cell.acceptance_by_position,
                    marker=MARKERS.get(draft, "^"),
                    markersize=5,
                    linewidth=1.8,
                    color=colour(draft, look),
                    label=draft,
                )
        plain_axes(panel, look, "position in the block", "accepted share of drafts")
        panel.set_xticks(range(1, gamma + 1))
        panel.set_ylim(0.0, 1.0)
        titled(panel, f"{degrees(temperature)}{named(summary)}, gamma = {gamma}", look)
        if panel is not panels[0]:
            panel.set_ylabel("")
    legend(figure, panels[0], look)
    return figure


def acceptance_by_context(summary: Summary, look: Theme) -> Figure | None:
    """Share of accepted drafted tokens, by length of the context, at the largest gamma."""
    temperatures, drafts = summary.temperatures(), ordered(summary.drafts())
    method = summary.shown_method
    gamma = max(cell.gamma for cell in summary.of_shown_method())
    shown = [
        context_bin
        for context_bin in summary.contexts
        if (context_bin.method, context_bin.gamma) == (method, gamma)
        and math.isfinite(context_bin.draft_acceptance.value)
    ]
    if not shown:
        return None
    figure = Figure(figsize=(3.4 * len(temperatures) + 0.4, 2.9), layout="constrained")
    panels = figure.subplots(1, len(temperatures), squeeze=False, sharey=True)[0]
    # The axis counts powers of two.
    powers = [context_bin.from_tokens.bit_length() - 1 for context_bin in shown]
    for panel, temperature in zip(panels, temperatures, strict=True):
        for shift, draft in enumerate(drafts):
            bins = [o for o in shown if (o.draft, o.temperature) == (draft, temperature)]
            aside = 0.1 * (shift - (len(drafts) - 1) / 2)
            with_intervals(
                panel,
                [context_bin.from_tokens.bit_length() - 1 + aside for context_bin in bins],
                [context_bin.draft_acceptance for context_bin in bins],
                draft,
                look,
                line=True,
            )
        plain_axes(panel, look, "tokens before the draft", "accepted share of drafted tokens")
        ticks = range(min(powers), max(powers) + 1)
        panel.set_xticks(ticks, [f"{2**power} to {2 ** (power + 1) - 1}" for power in ticks])
        panel.set_xlim(min(powers) - 0.5, max(powers) + 0.5)
        panel.set_ylim(0.0, 1.0)
        titled(panel, f"{degrees(temperature)}{named(summary)}, gamma = {gamma}", look)
        if panel is not panels[0]:
            panel.set_ylabel("")
    legend(figure, panels[0], look)
    return figure

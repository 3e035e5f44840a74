"""Tables over several kept evaluations: gain against drift, and predictions against the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from distillspec.measure.summary.records import Summary
from distillspec.text.numbers import NONE, bracketed, number
from docs.kept import Kept

# How far the target of an evaluation has drifted away from its draft.
DRIFTS = {"nano-plateau": "none", "nano-python": "near", "nano-cpp": "far"}


def drift_table(results: Mapping[str, Kept]) -> str:
    """Alpha before and after, and what distilling gains; every draft at the tested gamma."""
    head = (
        "drift",
        "T",
        "alpha before, after",
        "expected tau",
        "tokens/s",
        "tokens/s over control",
    )
    rows = [
        (drift, f"{temperature:g}", *_gains(summary, temperature))
        for name, drift in DRIFTS.items()
        if (summary := _evaluation(results, name)) is not None
        for temperature in summary.temperatures()
    ]
    return _markdown(head, rows)


def _gains(summary: Summary, temperature: float) -> tuple[str, str, str, str]:
    alphas = {
        cell.draft: cell.alpha.value
        for cell in summary.of_shown_method()
        if cell.temperature == temperature
    }
    before, after = (number(alphas[name], ".3f") for name in ("undistilled", "distilled"))
    return (
        f"{before}, {after}",
        _gain(summary, temperature, "expected tau", "undistilled"),
        _gain(summary, temperature, "speed", "undistilled"),
        _gain(summary, temperature, "speed", "control"),
    )


def _gain(summary: Summary, temperature: float, quantity: str, against: str) -> str:
    """Of the distilled draft, at the gamma where the verdict was tested."""
    for one in summary.comparisons:
        if (one.quantity, one.against, one.temperature) != (quantity, against, temperature):
            continue
        if one.verdict != "not tested":
            value, low, high = (100.0 * bound for bound in one.relative)
            shown = f"{number(value, '+.1f')} % {bracketed(low, high, '.1f')}"
            return f"none shown ({shown})" if one.verdict == "no difference shown" else shown
    return NONE


def predictions_table(results: Mapping[str, Kept]) -> str:
    """Measured over predicted speed-up of the standard method, the mean of all cells by gamma."""
    head = ("evaluation", "gamma", "mean", "lowest", "highest", "cells")
    rows = []
    for name in results:
        summary = _evaluation(results, name)
        for gamma in [] if summary is None else summary.gammas():
            assert summary is not None
            shares = [
                cell.measured_over_predicted
                for cell in summary.of_shown_method()
                if cell.gamma == gamma
            ]
            bounds = [number(bound, ".3f") for bound in (fmean(shares), min(shares), max(shares))]
            rows.append((name, str(gamma), *bounds, str(len(shares))))
    return _markdown(head, rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _evaluation(results: Mapping[str, Kept], name: str) -> Summary | None:
    kept = results.get(name)
    return kept.content if kept is not None and isinstance(kept.content, Summary) else None

"""Drafts that were trained in different ways, side by side: tau and alpha on the same texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from distillspec.measure.stats.intervals import (
    Interval,
    Sums,
    Verdict,
    ratio_of_runs,
    relative_of_runs,
    verdicts_of_runs,
)
from distillspec.text.numbers import NONE, bracketed, number, with_interval


class VariantReading(NamedTuple):
    """What one draft has come to on one kind of prompts, a number per source document.

    tau: expected tokens over expected verifications. alpha: sums of overlaps over tokens.
    """

    tau: Sums
    alpha: Sums

    def as_json(self) -> dict[str, Any]:
        return {name: sums._asdict() for name, sums in self._asdict().items()}


class VariantCost(NamedTuple):
    """Of one training run. seconds: by phase; text: of sampling stored responses before it."""

    steps: int
    response_tokens: int
    seconds: dict[str, float]
    text_seconds: float


class MeasuredVariant(NamedTuple):
    """One run: its readings by kind of prompts, and its cost; None of a draft not trained here."""

    readings: dict[str, VariantReading]
    cost: VariantCost | None


class VariantStanding(NamedTuple):
    """One variant on one kind of prompts. relative: of tau to the baseline's, minus 1.

    verdict: on that difference, all variants of a table tested together.
    """

    variant: str
    tau: Interval
    relative: Interval
    alpha: Interval
    tau_of_runs: list[float]
    tokens: float
    """response tokens of a run, on average; nan where nothing was trained"""
    seconds: dict[str, float]
    """of a run, by phase, on average"""
    verdict: Verdict


def standings(
    runs: Mapping[str, Sequence[MeasuredVariant]], baseline: str, kind: str, confidence: float
) -> list[VariantStanding]:
    """Every variant, the largest tau first."""
    base = [run.readings[kind].tau for run in runs[baseline]]
    taus_of = {name: [run.readings[kind].tau for run in mine] for name, mine in runs.items()}
    others = [name for name in runs if name != baseline]
    made = verdicts_of_runs([(taus_of[name], base) for name in others], confidence)
    verdicts = dict(zip(others, made, strict=True))
    found = []
    for variant, mine in runs.items():
        taus = taus_of[variant]
        alphas = [run.readings[kind].alpha for run in mine]
        costs = [run.cost for run in mine if run.cost is not None]
        found.append(
            VariantStanding(
                variant,
                ratio_of_runs(taus, confidence),
                relative_of_runs(taus, base, confidence),
                ratio_of_runs(alphas, confidence).within(0.0, 1.0),
                [one.ratio() for one in taus],
                _mean([cost.response_tokens for cost in costs]),
                _mean_seconds(costs),
                verdicts.get(variant, "not tested"),
            )
        )
    return sorted(found, key=lambda one: -one.tau.value)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _mean_seconds(costs: Sequence[VariantCost]) -> dict[str, float]:
    phases = dict.fromkeys(name for cost in costs for name in cost.seconds)
    found = {name: _mean([cost.seconds.get(name, 0.0) for cost in costs]) for name in phases}
    if any(cost.text_seconds for cost in costs):
        found = {"text": _mean([cost.text_seconds for cost in costs]), **found}
    return found


_SPLIT = ("text", "rollout", "target", "update")


def reached(found: Sequence[VariantStanding], baseline: str, confidence: float) -> list[list[str]]:
    """Text of the cells of a table, headings first: how good each variant became."""
    share = f"[{confidence:.0%}]"
    rows = [["variant", f"tau {share}", f"against {baseline}", f"alpha {share}"]]
    for one in found:
        against = "" if one.variant == baseline else _relative(one)
        tau, alpha = (with_interval(*found, ".3f") for found in (one.tau, one.alpha))
        rows.append([one.variant, tau, against, alpha])
    return rows


def spent(found: Sequence[VariantStanding]) -> list[list[str]]:
    """The same of what each run came to, and what a run cost on average."""
    rows = [["variant", "tau of each run", "tokens", " / ".join(_SPLIT) + ", s"]]
    for one in found:
        seconds = " / ".join(number(one.seconds.get(phase, 0.0), ".0f") for phase in _SPLIT)
        cost = [number(one.tokens, ",.0f"), seconds if one.seconds else NONE]
        rows.append([one.variant, " ".join(number(tau, ".3f") for tau in one.tau_of_runs), *cost])
    return rows


def _relative(one: VariantStanding) -> str:
    low, high = (100.0 * bound for bound in (one.relative.low, one.relative.high))
    text = f"{number(one.relative.value, '+.1%')} {bracketed(low, high, '+.1f')}"
    words = {"no difference shown": ": none shown", "too few documents": ": too few documents"}
    return text + words.get(one.verdict, "")


def tables(
    title: str, found: Sequence[VariantStanding], baseline: str, confidence: float
) -> tuple[Table, Table]:
    """For a terminal: what was reached, and what it cost."""
    return (
        _table(title, reached(found, baseline, confidence)),
        _table("what a run came to, and cost", spent(found)),
    )


def _table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    shown = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for place, name in enumerate(rows[0]):
        shown.add_column(name, justify="left" if place == 0 else "right")
    for row in rows[1:]:
        shown.add_row(*row)
    return shown


def markdown(found: Sequence[VariantStanding], baseline: str, confidence: float) -> str:
    """Both as one Markdown table."""
    both = zip(reached(found, baseline, confidence), spent(found), strict=True)
    head, *lines = [[*of_quality, *of_cost[1:]] for of_quality, of_cost in both]
    lines = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)

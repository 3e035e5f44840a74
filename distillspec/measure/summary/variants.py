"""Comparison of drafts trained in different ways, by tau and alpha on the same texts."""

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
    """The measurements of one draft on one kind of prompts, per source document.

    Attributes:
        tau: Expected tokens over expected rounds.
        alpha: Sums of overlaps over tokens.
    """

    tau: Sums
    alpha: Sums

    def as_json(self) -> dict[str, Any]:
        return {name: sums._asdict() for name, sums in self._asdict().items()}


class VariantCost(NamedTuple):
    """Cost of one training run.

    Attributes:
        steps: Optimizer steps.
        response_tokens: Tokens that the draft was trained on.
        seconds: Time by phase.
        text_seconds: Time for sampling stored responses before training.
    """

    steps: int
    response_tokens: int
    seconds: dict[str, float]
    text_seconds: float


class MeasuredVariant(NamedTuple):
    """One run: its measurements by kind of prompts, and its cost; None without training."""

    readings: dict[str, VariantReading]
    cost: VariantCost | None


class VariantStanding(NamedTuple):
    """One variant on one kind of prompts.

    Attributes:
        relative: tau over the baseline's tau, minus 1.
        verdict: On this difference, with all variants of a table tested together.
    """

    variant: str
    tau: Interval
    relative: Interval
    alpha: Interval
    tau_of_runs: list[float]
    tokens: float
    """Mean response tokens of a run; nan without training."""
    seconds: dict[str, float]
    """Mean seconds of a run by phase."""
    verdict: Verdict


def standings(
    runs: Mapping[str, Sequence[MeasuredVariant]], baseline: str, kind: str, confidence: float
) -> list[VariantStanding]:
    """All variants, the largest tau first."""
    base = [run.readings[kind].tau for run in runs[baseline]]
    taus_of = {
        name: [run.readings[kind].tau for run in of_variant] for name, of_variant in runs.items()
    }
    others = [name for name in runs if name != baseline]
    made = verdicts_of_runs([(taus_of[name], base) for name in others], confidence)
    verdicts = dict(zip(others, made, strict=True))
    ranked = []
    for variant, of_variant in runs.items():
        taus = taus_of[variant]
        alphas = [run.readings[kind].alpha for run in of_variant]
        costs = [run.cost for run in of_variant if run.cost is not None]
        ranked.append(
            VariantStanding(
                variant,
                ratio_of_runs(taus, confidence),
                relative_of_runs(taus, base, confidence),
                ratio_of_runs(alphas, confidence).within(0.0, 1.0),
                [standing.ratio() for standing in taus],
                _mean([cost.response_tokens for cost in costs]),
                _mean_seconds(costs),
                verdicts.get(variant, "not tested"),
            )
        )
    return sorted(ranked, key=lambda standing: -standing.tau.value)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _mean_seconds(costs: Sequence[VariantCost]) -> dict[str, float]:
    phases = dict.fromkeys(name for cost in costs for name in cost.seconds)
    means = {name: _mean([cost.seconds.get(name, 0.0) for cost in costs]) for name in phases}
    # Stored text is sampled before training, so it comes first.
    if any(cost.text_seconds for cost in costs):
        means = {"text": _mean([cost.text_seconds for cost in costs]), **means}
    return means


_SPLIT = ("text", "rollout", "target", "update")


def reached(
    variants: Sequence[VariantStanding], baseline: str, confidence: float
) -> list[list[str]]:
    """Cells of a table with the quality of each variant; headings come first."""
    share = f"[{confidence:.0%}]"
    rows = [["variant", f"tau {share}", f"against {baseline}", f"alpha {share}"]]
    for standing in variants:
        against = "" if standing.variant == baseline else _relative(standing)
        tau, alpha = (
            with_interval(*variants, ".3f") for variants in (standing.tau, standing.alpha)
        )
        rows.append([standing.variant, tau, against, alpha])
    return rows


def spent(variants: Sequence[VariantStanding]) -> list[list[str]]:
    """Cells of a table with tau of each run and the mean cost of a run; headings come first."""
    rows = [["variant", "tau of each run", "tokens", " / ".join(_SPLIT) + ", s"]]
    for standing in variants:
        seconds = " / ".join(number(standing.seconds.get(phase, 0.0), ".0f") for phase in _SPLIT)
        cost = [number(standing.tokens, ",.0f"), seconds if standing.seconds else NONE]
        rows.append(
            [standing.variant, " ".join(number(tau, ".3f") for tau in standing.tau_of_runs), *cost]
        )
    return rows


def _relative(standing: VariantStanding) -> str:
    low, high = (100.0 * bound for bound in (standing.relative.low, standing.relative.high))
    text = f"{number(standing.relative.value, '+.1%')} {bracketed(low, high, '+.1f')}"
    words = {"no difference shown": ": none shown", "too few documents": ": too few documents"}
    return text + words.get(standing.verdict, "")


def tables(
    title: str, variants: Sequence[VariantStanding], baseline: str, confidence: float
) -> tuple[Table, Table]:
    """Tables for a terminal: quality and cost."""
    return (
        _table(title, reached(variants, baseline, confidence)),
        _table("tau and cost of each run", spent(variants)),
    )


def _table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    shown = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column, name in enumerate(rows[0]):
        shown.add_column(name, justify="left" if column == 0 else "right")
    for row in rows[1:]:
        shown.add_row(*row)
    return shown


def markdown(variants: Sequence[VariantStanding], baseline: str, confidence: float) -> str:
    """Quality and cost as one Markdown table."""
    both = zip(reached(variants, baseline, confidence), spent(variants), strict=True)
    # Both tables begin with the variant's name, which is shown once.
    head, *lines = [[*of_quality, *of_cost[1:]] for of_quality, of_cost in both]
    lines = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)

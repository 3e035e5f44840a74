"""Drafts that were trained in different ways, side by side: tau and alpha on the same texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from distillspec.measure.bootstrap import (
    Interval,
    Resampling,
    Sums,
    ratio_of_runs,
    relative_of_runs,
)


class Reading(NamedTuple):
    """What one draft has come to on one kind of prompts, a number per text.

    tau: expected tokens over expected verifications. alpha: sums of overlaps over tokens.
    """

    tau: Sums
    alpha: Sums

    def as_json(self) -> dict[str, Any]:
        return {name: sums._asdict() for name, sums in self._asdict().items()}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Reading:
        """Errors: KeyError, TypeError for something else."""
        return cls(*(Sums(**value[name]) for name in cls._fields))


class Cost(NamedTuple):
    """Of one training run. seconds: by phase; text: of sampling stored responses before it."""

    steps: int
    response_tokens: int
    seconds: dict[str, float]
    text_seconds: float


class Measured(NamedTuple):
    """One run: its readings by kind of prompts, and its cost; None of a draft not trained here."""

    readings: dict[str, Reading]
    cost: Cost | None


class Standing(NamedTuple):
    """One variant on one kind of prompts. relative: of tau to the baseline's, minus 1."""

    variant: str
    tau: Interval
    relative: Interval
    alpha: Interval
    tau_of_runs: list[float]
    tokens: float
    """response tokens of a run, on average; nan where nothing was trained"""
    seconds: dict[str, float]
    """of a run, by phase, on average"""


def standings(
    runs: Mapping[str, Sequence[Measured]], baseline: str, kind: str, how: Resampling
) -> list[Standing]:
    """Every variant, the largest tau first."""
    base = [run.readings[kind].tau for run in runs[baseline]]
    found = []
    for variant, mine in runs.items():
        taus = [run.readings[kind].tau for run in mine]
        costs = [run.cost for run in mine if run.cost is not None]
        found.append(
            Standing(
                variant,
                ratio_of_runs(taus, how),
                relative_of_runs(taus, base, how),
                ratio_of_runs([run.readings[kind].alpha for run in mine], how),
                [one.ratio() for one in taus],
                _mean([cost.response_tokens for cost in costs]),
                _mean_seconds(costs),
            )
        )
    return sorted(found, key=lambda one: -one.tau.value)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _mean_seconds(costs: Sequence[Cost]) -> dict[str, float]:
    phases = dict.fromkeys(name for cost in costs for name in cost.seconds)
    found = {name: _mean([cost.seconds.get(name, 0.0) for cost in costs]) for name in phases}
    if any(cost.text_seconds for cost in costs):
        found = {"text": _mean([cost.text_seconds for cost in costs]), **found}
    return found


_SPLIT = ("text", "rollout", "target", "update")


def rows(found: Sequence[Standing], baseline: str) -> list[list[str]]:
    """Text of the cells of a table, a row a variant, under `headings`."""
    return [_row(one, baseline) for one in found]


def headings(baseline: str, confidence: float) -> list[str]:
    """What stands over the columns of `rows`."""
    share = f"{confidence:.0%}"
    return [
        *("variant", "tau", share, f"against {baseline}", share, "alpha", share),
        *("tau of each run", "tokens", "text / rollout / target / update, s"),
    ]


def _row(one: Standing, baseline: str) -> list[str]:
    seconds = [one.seconds.get(phase, 0.0) for phase in _SPLIT]
    is_trained = bool(one.seconds)
    return [
        one.variant,
        f"{one.tau.value:.3f}",
        f"{one.tau.low:.3f} - {one.tau.high:.3f}",
        "" if one.variant == baseline else f"{one.relative.value:+.1%}",
        "" if one.variant == baseline else _relative(one.relative),
        f"{one.alpha.value:.4f}",
        f"{one.alpha.low:.4f} - {one.alpha.high:.4f}",
        " ".join(f"{tau:.3f}" for tau in one.tau_of_runs),
        f"{one.tokens:,.0f}" if is_trained else "–",
        " / ".join(f"{part:.0f}" for part in seconds) if is_trained else "–",
    ]


def _relative(interval: Interval) -> str:
    text = f"{interval.low:+.1%} to {interval.high:+.1%}"
    return text if interval.excludes(0.0) else f"{text}: none shown"


def table(title: str, found: Sequence[Standing], baseline: str, confidence: float) -> Table:
    """For a terminal."""
    shown = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for place, name in enumerate(headings(baseline, confidence)):
        shown.add_column(name, justify="left" if place == 0 else "right")
    for row in rows(found, baseline):
        shown.add_row(*row)
    return shown


def markdown(found: Sequence[Standing], baseline: str, confidence: float) -> str:
    """The same as a Markdown table."""
    lines = [headings(baseline, confidence), ["---"] * len(headings(baseline, confidence))]
    lines += rows(found, baseline)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)

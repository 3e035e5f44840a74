"""What the distillation cost, and after how many generated tokens the saved time repays it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from distillspec.text.numbers import clock

if TYPE_CHECKING:  # verbs that only look at a run folder need no statistics
    from distillspec.measure.summary.records import Summary

_HOUR = 3600.0


class Cost(NamedTuple):
    """What making a draft took.

    Attributes:
        text_seconds: Sampling and caching of the text that it learned from.
        training_seconds: Training with its probes and checkpoints.
        processes: Processes that trained.
    """

    text_seconds: float
    training_seconds: float
    processes: int

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> Cost | None:
        """From training.json; None where it lacks the distilled draft, or is of version 0.2.

        Raises:
            AttributeError, KeyError, TypeError: The file was changed.
        """
        draft = training.get("distilled")
        if not isinstance(draft, Mapping) or "text_seconds" not in draft:
            return None
        phases = draft["seconds_by_phase"]
        return cls(
            draft["text_seconds"] + 0.0,
            draft["seconds"] + phases.get("probe", 0.0) + phases.get("checkpoint", 0.0),
            draft["processes"] + 0,
        )

    @property
    def seconds(self) -> float:
        return self.text_seconds + self.training_seconds


def payback(summary: Summary, cost: Cost, price_per_hour: float | None = None) -> list[str]:
    """Sentences on cost and pay-back.

    Tokens are those of one stream of requests, as the evaluation decoded them.

    Args:
        summary: What was measured.
        cost: Of the distilled draft.
        price_per_hour: Of a GPU, or of a machine without GPUs.
    """
    machine = summary.environment.get("machine")
    facts = machine if isinstance(machine, Mapping) else {}
    if facts.get("gpus"):
        devices, unit = cost.processes, "GPU-hours"
    else:
        cores = facts.get("cores")
        devices, unit = cores if isinstance(cores, int) and cores else 1, "core-hours"
    hours = cost.seconds / _HOUR
    lines = [
        f"Distilling took {clock(cost.seconds)} or {hours * devices:.2g} {unit}: "
        f"{clock(cost.text_seconds)} for text of the target, {clock(cost.training_seconds)} for "
        "training."
    ]
    lines += [_repaid(summary, cost.seconds, temperature) for temperature in summary.temperatures()]
    if price_per_hour is not None:
        priced = hours * (devices if unit == "GPU-hours" else 1)
        lines.append(
            f"At {price_per_hour:g} per {'GPU-hour' if unit == 'GPU-hours' else 'hour'}, it cost "
            f"{priced * price_per_hour:.2f}."
        )
    return lines


def _repaid(summary: Summary, seconds: float, temperature: float) -> str:
    draft = summary.shown_draft
    here = _per_token(summary, draft, temperature)
    best = summary.servable(draft, temperature) or summary.fastest(draft, temperature)
    plain = next((b for b in summary.baseline if b.temperature == temperature), None)
    alone = 0.0 if plain is None else plain.tokens_per_second.value
    against = [
        ("the target alone", 1.0 / alone if alone else math.nan, best and best.speedup.low > 1.0),
        (
            "the undistilled draft",
            _per_token(summary, "undistilled", temperature),
            _is_shown_faster(summary, temperature),
        ),
    ]
    words = []
    for name, other, is_shown in against:
        saved = other - here  # seconds per token
        if not math.isfinite(saved):
            continue
        if is_shown and saved > 0.0:
            words.append(f"after {seconds / saved:,.0f} tokens against {name}")
        else:
            words.append(f"not against {name}: no saved time is shown")
    return f"At T = {temperature:g} it is repaid {', '.join(words) or 'after an unknown time'}."


def _is_shown_faster(summary: Summary, temperature: float) -> bool:
    """Whether the draft was shown to decode faster than the undistilled one."""
    return any(
        comparison.verdict == "higher"
        for comparison in summary.comparisons
        if (comparison.quantity, comparison.against) == ("speed", "undistilled")
        and comparison.temperature == temperature
    )


def _per_token(summary: Summary, draft: str, temperature: float) -> float:
    """Seconds per token of the draft's best configuration that engines run; nan without one."""
    best = summary.servable(draft, temperature) or summary.fastest(draft, temperature)
    cell = None
    if best is not None:
        cell = summary.cell(draft, best.method, best.gamma, temperature)
    return math.nan if cell is None or not cell.tokens_per_second else 1.0 / cell.tokens_per_second

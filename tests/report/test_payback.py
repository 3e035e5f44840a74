from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.records import Summary
from distillspec.report.payback import Cost, payback

TRAINING: dict[str, Any] = {
    "distilled": {
        "seconds": 60.0,
        "seconds_by_phase": {"update": 60.0, "probe": 20.0, "checkpoint": 10.0},
        "text_seconds": 30.0,
        "processes": 2,
    }
}


def measured(by_hand: Summary, plain: float, undistilled: float, distilled: float) -> Summary:
    """At every temperature and gamma, these tokens per second."""
    speeds = {"undistilled": undistilled, "distilled": distilled, "control": 1.0}
    cells = [replace(c, tokens_per_second=speeds[c.draft]) for c in by_hand.cells]
    alone = Interval(plain, plain, plain)
    baseline = [replace(line, tokens_per_second=alone) for line in by_hand.baseline]
    some = replace(by_hand.recommendation[0], speedup=Interval(1.5, 1.2, 1.8))
    best = [
        replace(some, draft=draft, temperature=temperature, gamma=4)
        for draft in ("undistilled", "distilled")
        for temperature in (0.0, 1.0)
    ]
    machine = {"cores": 2, "gpus": []}
    faster = "higher" if distilled > undistilled else "no difference shown"
    speed = next(c for c in by_hand.comparisons if c.quantity == "speed")
    return replace(
        by_hand,
        comparisons=[replace(speed, temperature=t, verdict=faster) for t in (0.0, 1.0)],
        cells=cells,
        baseline=baseline,
        recommendation=best,
        environment={"machine": machine},
    )


def test_the_cost_is_text_training_probes_and_checkpoints() -> None:
    cost = Cost.of(TRAINING)
    assert cost == Cost(30.0, 90.0, 2)
    assert cost is not None and cost.seconds == 120.0
    assert Cost.of({}) is None
    assert Cost.of({"distilled": {"seconds": 60.0, "seconds_by_phase": {}}}) is None


def test_the_saved_time_repays_the_cost(by_hand: Summary) -> None:
    """A token takes 0.1 s by the target alone, 0.08 s by the undistilled draft, 0.05 s now."""
    lines = payback(measured(by_hand, 10.0, 12.5, 20.0), Cost(30.0, 90.0, 1))
    assert lines[0].startswith("Distilling took 2:00 or 0.067 core-hours: 0:30 for text")
    assert lines[1] == (
        "At T = 0 it is repaid after 2,400 tokens against the target alone, after 4,000 tokens "
        "against the undistilled draft."
    )
    assert len(lines) == 3


def test_what_saves_no_time_is_never_repaid(by_hand: Summary) -> None:
    lines = payback(measured(by_hand, 10.0, 20.0, 20.0), Cost(30.0, 90.0, 1))
    assert "after 2,400 tokens against the target alone" in lines[1]
    assert "not against the undistilled draft: no saved time is shown" in lines[1]


def test_a_speed_up_that_is_not_shown_repays_nothing(by_hand: Summary) -> None:
    summary = measured(by_hand, 10.0, 12.5, 20.0)
    unsure = [replace(r, speedup=Interval(1.5, 0.9, 2.0)) for r in summary.recommendation]
    lines = payback(replace(summary, recommendation=unsure), Cost(30.0, 90.0, 1))
    assert "not against the target alone: no saved time is shown" in lines[1]
    assert "after 4,000 tokens against the undistilled draft" in lines[1]


def test_an_odd_summary_has_a_cost_and_no_claim(by_hand: Summary) -> None:
    summary = replace(
        measured(by_hand, 0.0, 0.0, 0.0), environment={"machine": {"cores": "two", "gpus": None}}
    )
    lines = payback(summary, Cost(30.0, 90.0, 1))
    assert "0.033 core-hours" in lines[0]
    assert lines[1] == "At T = 0 it is repaid after an unknown time."


@pytest.mark.parametrize(
    ("gpus", "words", "price"),
    [([], "0.067 core-hours", "0.10"), (["H"], "0.13 GPU-hours", "0.40")],
)
def test_the_price_is_of_a_machine_or_of_each_gpu(
    by_hand: Summary, gpus: list[str], words: str, price: str
) -> None:
    summary = measured(by_hand, 10.0, 12.5, 20.0)
    summary = replace(summary, environment={"machine": {"cores": 2, "gpus": gpus}})
    lines = payback(summary, Cost(30.0, 90.0, 4), 3.0)
    assert words in lines[0]
    assert lines[-1].endswith(f"it cost {price}.")


def test_without_measured_speeds_nothing_is_claimed(by_hand: Summary) -> None:
    lines = payback(replace(by_hand, recommendation=[], environment={}), Cost(1.0, 1.0, 1))
    assert lines[1] == "At T = 0 it is repaid after an unknown time."

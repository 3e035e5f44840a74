from __future__ import annotations

import io
import logging
import math

import pytest

from distillspec.runtime.terminal import Terminal
from distillspec.training.progress import (
    NoProgress,
    ProgressBar,
    ProgressLines,
    StepReport,
    make_reporter,
)

SECONDS = {"rollout": 20.0, "target": 10.0, "update": 10.0, "probe": 5.0, "checkpoint": 1.0}


def _report(step: int = 25, alpha: float = 0.5) -> StepReport:
    return StepReport(step, 100, 1.25, alpha, 1234.0, step / 100, SECONDS)


def test_a_report_says_loss_alpha_speed_shares_and_time_to_go() -> None:
    assert _report().text() == (
        "step 25/100  loss 1.2500 nats  alpha 0.500  1,234 tokens/s  "
        "(rollout 50%, target 25%, update 25%)  ETA 2:00"
    )


def test_a_loss_has_the_unit_of_its_divergence() -> None:
    assert "loss 1.2500  alpha" in _report()._replace(loss_unit="").text()
    assert "loss 1.2500 tokens  alpha" in _report()._replace(loss_unit="tokens").text()


def test_alpha_is_left_out_where_there_is_no_target() -> None:
    assert "alpha" not in _report(alpha=math.nan).text()


def test_an_alpha_that_is_a_bound_is_told_as_one() -> None:
    assert "  alpha <= 0.500  " in _report()._replace(alpha_is_bound=True).text()


def test_the_time_to_go_is_unknown_before_anything_is_done() -> None:
    assert _report(step=0).text().endswith("ETA unknown")


def test_lines_say_the_first_and_the_last_step_but_not_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = ProgressLines()
    lines.start("distilled")
    with caplog.at_level(logging.INFO, logger="distillspec.training.progress"):
        for step in range(1, 9):
            lines.step(_report(step))
        lines.note("alpha 0.7")
        lines.stop()
    said = [record.getMessage() for record in caplog.records]
    assert [text.split("  ")[0] for text in said] == [
        "distilled: step 1/100",
        "distilled: alpha 0.7",
        "distilled: step 8/100",
    ]


def test_the_bar_draws_the_report() -> None:
    screen = io.StringIO()
    bar = ProgressBar(Terminal(file=screen, force_terminal=True, width=180))
    bar.start("distilled")
    bar.step(_report())
    bar.note("alpha 0.7")
    bar.stop()
    assert "loss 1.2500 nats" in screen.getvalue()
    assert "alpha 0.7" in screen.getvalue()


def test_only_rank_0_speaks() -> None:
    assert isinstance(make_reporter(1), NoProgress)
    assert isinstance(make_reporter(0), ProgressLines)  # a test has no terminal

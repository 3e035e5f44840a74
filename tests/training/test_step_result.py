from __future__ import annotations

import math

from distillspec.training.step_result import StepResult


def test_metrics_divide_sums_once() -> None:
    seconds = {"rollout": 1.0, "target": 0.5, "update": 0.5}
    metrics = StepResult(6.0, 4.0, 9.0, 12.0, 1e-3, 0.7, seconds).metrics()
    assert metrics["train/divergence_nats"] == 1.5
    assert metrics["train/alpha"] == 0.75
    assert metrics["train/tokens_per_second"] == 6.0
    assert metrics["train/rollout_seconds"] == 1.0


def test_a_loss_that_is_not_in_nats_is_not_called_so() -> None:
    result = StepResult(6.0, 4.0, 9.0, 12.0, 1e-3, 0.7, {"update": 1.0}, loss_unit="")
    assert result.metrics()["train/divergence"] == 1.5
    assert "train/divergence_nats" not in result.metrics()


def test_a_step_in_which_no_token_could_be_scored_has_no_alpha() -> None:
    seconds = {"rollout": 1.0, "target": 0.5, "update": 0.5}
    metrics = StepResult(0.0, 4.0, 0.0, 0.0, 1e-3, 0.7, seconds).metrics()
    assert math.isnan(metrics["train/alpha"])
    assert metrics["train/tokens_per_second"] == 0.0


def test_alpha_against_a_kept_signal_is_named_as_the_bound_that_it_is() -> None:
    seconds = {"rollout": 1.0, "target": 0.5, "update": 0.5}
    result = StepResult(6.0, 4.0, 9.0, 12.0, 1e-3, 0.7, seconds, alpha_is_bound=True)
    assert result.metrics()["train/alpha_at_most"] == 0.75
    assert "train/alpha" not in result.metrics()

from __future__ import annotations

import time

import pytest
import torch

from distillspec.training.clock import StageClock


def test_seconds_add_up_by_phase_and_probes_are_not_training() -> None:
    clock = StageClock(torch.device("cpu"))
    for phase in ("rollout", "target", "update", "update", "probe", "checkpoint"):
        with clock.phase(phase):
            time.sleep(0.01)
    assert clock.seconds["update"] >= 0.02
    assert clock.seconds["probe"] >= 0.01
    spent = sum(clock.seconds[name] for name in ("rollout", "target", "update"))
    assert clock.training_seconds == pytest.approx(spent)


def test_a_phase_that_fails_is_counted_all_the_same() -> None:
    clock = StageClock(torch.device("cpu"))
    with pytest.raises(ZeroDivisionError), clock.phase("update"):
        raise ZeroDivisionError
    assert clock.seconds["update"] > 0.0

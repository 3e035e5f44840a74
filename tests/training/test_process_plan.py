from __future__ import annotations

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.runtime.world import World
from distillspec.training.process_plan import ProcessPlan
from tests.training import tiny_run


def _plan(processes: int = 1, **distill: int) -> ProcessPlan:
    return ProcessPlan.of(tiny_run.recipe(distill=distill), World(processes, processes, 0))


def test_processes_share_a_batch_equally() -> None:
    plan = _plan(2, batch_size=6)
    assert (plan.strategy, plan.rows, plan.micro_batch_size, plan.micro_batches) == ("ddp", 3, 3, 1)
    assert not plan.is_sharded


def test_the_last_micro_batch_of_a_step_may_be_shorter() -> None:
    assert _plan(batch_size=5, micro_batch_size=2).micro_batches == 3


def test_a_micro_batch_is_at_most_the_share_of_a_process() -> None:
    assert _plan(2, batch_size=4, micro_batch_size=4).micro_batch_size == 2


def test_a_batch_that_processes_cannot_share_is_an_error() -> None:
    with pytest.raises(DistillSpecError, match="4 sequences") as caught:
        _plan(3, batch_size=4)
    assert "distill.batch_size=6" in caught.value.fix


def test_the_recipe_chooses_device_and_precision() -> None:
    plan = _plan()
    assert (plan.accelerator, plan.dtype) == ("cpu", torch.float32)

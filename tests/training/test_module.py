from __future__ import annotations

from pathlib import Path

import torch

from distillspec.training import module
from distillspec.training.clock import Clock
from distillspec.training.module import DistillModule
from distillspec.training.objective import Objective
from distillspec.training.replica import Replica
from distillspec.training.resume import Position
from distillspec.training.rollout import Rollout
from distillspec.training.step import Step
from tests.training import tiny_run


def test_the_module_knows_no_parameter_but_the_drafts(tiny_pair: Path) -> None:
    made = tiny_run.parts(tiny_pair, tiny_run.recipe())
    step = Step(
        made.recipe,
        Objective(made.recipe.distill, made.target),
        Rollout(
            made.recipe.distill,
            made.target,
            max_new_tokens=2,
            end_tokens=frozenset(),
            pad_token=0,
        ),
        Replica(made.draft, torch.bfloat16, sharded=False),
        clock=Clock(torch.device("cpu")),
        position=Position(),
        autocast_dtype=torch.float32,
        micro_batch_size=4,
    )
    wired = DistillModule(made.draft, step, fsdp2=False)
    assert {id(p) for p in wired.parameters()} == {id(p) for p in made.draft.parameters()}
    assert all(name.startswith("draft.") for name in wired.state_dict())
    (optimizer,) = wired.configure_optimizers()
    optimised = optimizer.param_groups
    assert {id(p) for group in optimised for p in group["params"]} == {
        id(p) for p in made.draft.parameters()
    }


def test_the_module_is_wiring() -> None:
    assert module.__file__ is not None
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) <= 70

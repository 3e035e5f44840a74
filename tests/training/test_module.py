from __future__ import annotations

from pathlib import Path

import torch

from distillspec.corpus.batches.batching import collate
from distillspec.models.bare import bare_model
from distillspec.runtime.world import World
from distillspec.training import module
from distillspec.training.inference_copy import InferenceCopy
from distillspec.training.module import DistillModule
from distillspec.training.objective import Objective
from distillspec.training.process_plan import ProcessPlan
from distillspec.training.resume import Position
from distillspec.training.rollout import Rollout
from distillspec.training.step import Step
from tests.training import tiny_run


def _wired(made: tiny_run.Parts, dtype: torch.dtype = torch.float32) -> DistillModule:
    processes = ProcessPlan.of(made.recipe, World(1, 1, 0))._replace(dtype=dtype)
    step = Step(
        made.recipe,
        [Objective(made.recipe.distill, made.target)],
        Rollout(
            made.recipe.distill,
            made.target,
            max_new_tokens=2,
            eos_token_ids=frozenset(),
            pad_token=0,
        ),
        InferenceCopy(made.draft, torch.bfloat16, sharded=False),
        processes=processes,
        position=Position(),
    )
    return DistillModule(made.draft, step, fsdp2=False)


def test_the_module_knows_no_parameter_but_the_drafts(tiny_pair: Path) -> None:
    made = tiny_run.parts(tiny_pair, tiny_run.recipe())
    wired = _wired(made)
    assert {id(p) for p in wired.parameters()} == {id(p) for p in made.draft.parameters()}
    assert all(name.startswith("draft.") for name in wired.state_dict())
    (optimizer,) = wired.configure_optimizers()
    optimised = optimizer.param_groups
    assert {id(p) for group in optimised for p in group["params"]} == {
        id(p) for p in made.draft.parameters()
    }


def test_the_drafts_products_are_in_the_runs_precision_whatever_wraps_it(tiny_pair: Path) -> None:
    """DeepSpeed's engine calls the module with autocast ended, if it is not asked for by it."""
    made = tiny_run.parts(tiny_pair, tiny_run.recipe())
    wired = _wired(made, torch.bfloat16)
    seen: list[torch.dtype] = []
    linear = bare_model(made.draft).model.layers[0].mlp.up_proj
    linear.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    batch = collate([((5, 6, 7), (8, 9))], 0)
    signal = wired.step.objective.target_outputs(made.draft, batch)
    with torch.autocast("cpu", enabled=False):
        wired(batch, signal, None)
    assert seen[-1] == torch.bfloat16


def test_the_module_is_wiring() -> None:
    assert module.__file__ is not None
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) <= 70

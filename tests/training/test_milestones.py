from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from distillspec.models.loading import load_model
from distillspec.recipe.distill import Distill
from distillspec.training.milestones import is_over
from distillspec.training.resume import Position
from distillspec.training.state_file import read_state
from tests.training import tiny_run


def test_a_run_is_over_by_steps_or_by_training_time() -> None:
    assert not is_over(Position(step=9, training_seconds=1e9), Distill(max_steps=10))
    assert is_over(Position(step=10), Distill(max_steps=10))
    assert is_over(Position(training_seconds=61.0), Distill(max_steps=10, max_minutes=1.0))


def test_the_best_draft_is_the_one_with_the_highest_alpha(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(distill={"source": {"fixed": 1.0}})
    outcome = tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    rows = tiny_run.rows_of(tmp_path)
    alphas = {int(row["step"]): float(row["probe/alpha"]) for row in rows if row["probe/alpha"]}
    assert outcome.best_alpha == max(alphas.values())
    assert alphas[outcome.best_step] == outcome.best_alpha
    assert read_state(tmp_path / "best.ckpt")["step"] == outcome.best_step


def test_training_that_only_does_harm_leaves_the_draft_as_it_was(
    tiny_pair: Path, tmp_path: Path
) -> None:
    """The draft is the target itself, and is taught random text."""
    plan = tiny_run.recipe(distill={"divergence": "nll", "source": {"fixed": 1.0}})
    made = tiny_run.parts(tiny_pair, plan)
    draft = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    outcome = tiny_run.run(made._replace(draft=draft), tmp_path)
    assert outcome.best_step == 0
    assert outcome.best_alpha == pytest.approx(1.0, abs=1e-5)
    for mine, its in zip(draft.parameters(), made.target.model.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_the_last_step_is_probed_and_saved_wherever_it_falls(
    tiny_pair: Path, tmp_path: Path
) -> None:
    plan = tiny_run.recipe(
        distill={
            "source": {"fixed": 1.0},
            "max_steps": 3,
            "checkpoint_every_steps": 100,
            "probe": {"every_steps": 100, "prompts": 2, "gamma": 1, "max_new_tokens": 4},
        }
    )
    tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    probed = [row["step"] for row in tiny_run.rows_of(tmp_path) if row["probe/alpha"]]
    assert probed == ["0", "3"]
    assert read_state(tmp_path / "last.ckpt")["position"]["step"] == 3


def test_without_a_probe_the_last_step_is_the_best(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(distill={"source": {"fixed": 1.0}})
    outcome = tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path, probed=False)
    assert outcome.best_step == 4
    assert math.isnan(read_state(tmp_path / "best.ckpt")["alpha"])

from __future__ import annotations

import math
from pathlib import Path

import pytest

from distillspec.recipe.schema import Distill
from distillspec.training.milestones import is_over
from distillspec.training.resume import Position
from distillspec.training.state_file import read_state
from tests.training import tiny_run


def test_a_run_is_over_by_steps_or_by_training_time() -> None:
    assert not is_over(Position(step=9, training_seconds=1e9), Distill(max_steps=10))
    assert is_over(Position(step=10), Distill(max_steps=10))
    assert is_over(Position(training_seconds=61.0), Distill(max_steps=10, max_minutes=1.0))


@pytest.mark.parametrize("rate", [1e-2, 1.0])
def test_the_best_draft_is_the_one_with_the_highest_alpha(
    tiny_pair: Path, tmp_path: Path, rate: float
) -> None:
    """A rate of 1 ruins the draft: step 0 stays the best."""
    plan = tiny_run.recipe(distill={"source": {"fixed": 1.0}}, optimizer={"learning_rate": rate})
    outcome = tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    rows = tiny_run.rows_of(tmp_path)
    alphas = {int(row["step"]): float(row["probe/alpha"]) for row in rows if row["probe/alpha"]}
    assert outcome.best_alpha == max(alphas.values())
    assert alphas[outcome.best_step] == outcome.best_alpha
    assert read_state(tmp_path / "best.ckpt")["step"] == outcome.best_step
    assert outcome.best_step == 0 or rate < 1.0


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

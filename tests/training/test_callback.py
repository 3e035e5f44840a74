from __future__ import annotations

import logging
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model
from distillspec.recipe.distill import DistillConfig
from distillspec.runtime.interrupts import Terminated
from distillspec.training.callback import is_over
from distillspec.training.resume import Position
from distillspec.training.state_file import read_state
from tests.training import tiny_run


def test_a_run_is_over_by_steps_or_by_training_time() -> None:
    assert not is_over(Position(step=9, training_seconds=1e9), DistillConfig(max_steps=10))
    assert is_over(Position(step=10), DistillConfig(max_steps=10))
    assert is_over(Position(training_seconds=61.0), DistillConfig(max_steps=10, max_minutes=1.0))


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


RARELY = {
    "source": {"draft": 1.0},
    "max_steps": 6,
    "checkpoint_every_steps": 100,
    "probe": {"every_steps": 100, "prompts": 2, "gamma": 1, "max_new_tokens": 4},
}


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_an_interrupt_saves_its_step_and_the_run_goes_on_bit_for_bit(
    tiny_pair: Path, tmp_path: Path, number: signal.Signals, kind: type[KeyboardInterrupt]
) -> None:
    plan = tiny_run.recipe(distill=RARELY)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    tiny_run.run(tiny_run.parts(tiny_pair, plan), whole)
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    made = tiny_run.parts(tiny_pair, plan)
    with pytest.raises(kind):
        tiny_run.run(tiny_run.interrupted(made, 3, lambda: os.kill(os.getpid(), number)), cut)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert read_state(cut / "last.ckpt")["position"]["step"] == 3
    tiny_run.run(tiny_run.parts(tiny_pair, plan), cut, resume=True)
    states = [read_state(folder / "last.ckpt") for folder in (whole, cut)]
    for name, weight in states[0]["state_dict"].items():
        assert torch.equal(weight, states[1]["state_dict"][name])
    assert [row["step"] for row in tiny_run.rows_of(cut)] == [str(step) for step in range(7)]


def test_a_run_is_saved_by_time_as_well_as_by_steps(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(distill={**RARELY, "checkpoint_every_minutes": 1e-9})
    made = tiny_run.parts(tiny_pair, plan)
    saved: list[int] = []

    def look() -> None:
        saved.append(read_state(tmp_path / "last.ckpt")["position"]["step"])

    tiny_run.run(tiny_run.interrupted(made, 4, look), tmp_path)
    assert saved == [3, 4]


def test_weights_that_an_update_spoils_are_neither_saved_nor_probed(
    tiny_pair: Path, tmp_path: Path
) -> None:
    """The loss and the gradient of the step are finite; its update is not."""
    plan = tiny_run.recipe(
        distill={**RARELY, "max_steps": 2, "source": {"fixed": 1.0}},
        optimizer={"warmup_steps": 0},
    )
    wild = plan.optimizer.model_copy(update={"learning_rate": 1e38})
    plan = plan.model_copy(update={"optimizer": wild})
    with pytest.raises(DistillSpecError, match="largest updated weight is nan") as caught:
        tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    assert "step 1, at a learning rate of 1e+38" in caught.value.where
    assert "optimizer.learning_rate" in caught.value.fix
    assert not (tmp_path / "last.ckpt").exists()
    best = read_state(tmp_path / "best.ckpt")
    assert best["step"] == 0
    assert all(bool(weight.isfinite().all()) for weight in best["weights"].values())


# The thread in which tensorboard writes its events file misses the folder as well, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_folder_that_was_deleted_ends_the_run_and_is_not_made_again(
    tiny_pair: Path, tmp_path: Path
) -> None:
    made = tiny_run.parts(tiny_pair, tiny_run.recipe(distill=RARELY))
    folder = tmp_path / "run"

    def delete() -> None:
        # TensorBoard's thread opens its file at every flush, and would make it again
        # between the steps of an rmtree. A renamed folder is gone at once.
        shutil.rmtree(folder.rename(tmp_path / "deleted"))

    with pytest.raises(DistillSpecError, match="deleted while it was in use"):
        tiny_run.run(tiny_run.interrupted(made, 3, delete), folder)
    assert not folder.exists()


def test_the_run_says_why_it_begins_with_its_phase(
    tiny_pair: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The target is a perfect draft of itself, and skips the phase."""
    schedule = [
        {"share": 0.5, "divergence": "forward_kl", "until_alpha": 0.99},
        {"share": 0.5, "divergence": "jsd"},
    ]
    plan = tiny_run.recipe(distill={"source": {"fixed": 1.0}, "schedule": schedule})
    for folder, words in (
        ("draft", "step 0: alpha is below 0.99; first forward kl"),
        ("target", "step 0: alpha has reached 0.99; next: jsd[0.5]"),
    ):
        made = tiny_run.parts(tiny_pair, plan)
        draft = load_model(str(tiny_pair / folder), dtype=torch.float32)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            tiny_run.run(made._replace(draft=draft), tmp_path / folder)
        said = [record.getMessage() for record in caplog.records if "step 0: " in record.message]
        assert sum(words in line for line in said) == 1
        assert len(said) == 2  # the probe's result, and the reason

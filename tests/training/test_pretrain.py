import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from distillspec.corpus.batches.windows import Windows, validation_rows
from distillspec.errors import DistillSpecError
from distillspec.models.surgery.random_llama import random_llama
from distillspec.recipe.pretraining import PretrainConfig
from distillspec.recipe.start import LlamaShape
from distillspec.training import pretrain as pretrain_module
from distillspec.training.pretrain import PretrainProgress, mean_nats, pretrain
from distillspec.training.state_file import read_state

PLAN = PretrainConfig(
    context=16, batch_size=4, max_steps=12, validate_every_steps=4, warmup_steps=2, decay_share=0.5
)
SHAPE = LlamaShape(hidden_size=16, intermediate_size=32, layers=2, heads=2)


def model() -> LlamaForCausalLM:
    return random_llama(SHAPE, vocab_size=20, end_token=0, seed=0)


def run(folder: Path, plan: PretrainConfig = PLAN) -> tuple[LlamaForCausalLM, PretrainProgress]:
    tokens = (torch.arange(2000) * 7 % 20).int()
    network = model()
    progress = pretrain(
        network,
        Windows(tokens, context=plan.context, batch_size=plan.batch_size, seed=0),
        validation_rows(tokens, context=plan.context, rows=8),
        plan,
        folder=folder,
        precision=torch.float32,
        report=lambda _: None,
    )
    return network, progress


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_mean_is_that_of_the_models_own_loss() -> None:
    network, ids = model(), torch.randint(20, (3, 16))
    with torch.no_grad():
        assert mean_nats(network, ids).item() == pytest.approx(
            network(input_ids=ids, labels=ids).loss.item(), abs=1e-5
        )


def test_a_regular_text_is_learned(tmp_path: Path) -> None:
    _, progress = run(tmp_path, PLAN.model_copy(update={"max_steps": 120}))
    assert (
        progress.validation_nats_per_token
        < 1.0
        < float(rows(tmp_path)[0]["validation_nats_per_token"])
    )


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """The level part: stopping at step 4 of a longer plan is stopping anywhere before the decay."""
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        stop_at_step(4, tmp_path / "parts")
    assert [row["step"] for row in rows(tmp_path / "parts")] == ["4"]
    parts, _ = run(tmp_path / "parts")
    assert [row["step"] for row in rows(tmp_path / "parts")] == ["4", "8", "12"]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


def stop_at_step(step: int, folder: Path) -> None:
    tokens = (torch.arange(2000) * 7 % 20).int()

    def interrupt(progress: PretrainProgress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    pretrain(
        model(),
        Windows(tokens, context=PLAN.context, batch_size=PLAN.batch_size, seed=0),
        validation_rows(tokens, context=PLAN.context, rows=8),
        PLAN,
        folder=folder,
        precision=torch.float32,
        report=interrupt,
    )


def test_a_loss_that_is_not_finite_stops_with_a_message_and_keeps_the_last_state(
    tmp_path: Path,
) -> None:
    network, kept = model(), []
    tokens = (torch.arange(2000) * 7 % 20).int()

    def poison(_: PretrainProgress) -> None:
        kept.append((tmp_path / "state.pt").read_bytes())
        network.model.norm.weight.data.fill_(float("nan"))

    with pytest.raises(DistillSpecError, match="not finite at step 8"):
        pretrain(
            network,
            Windows(tokens, context=PLAN.context, batch_size=PLAN.batch_size, seed=0),
            validation_rows(tokens, context=PLAN.context, rows=8),
            PLAN,
            folder=tmp_path,
            precision=torch.float32,
            report=poison,
        )
    assert [(tmp_path / "state.pt").read_bytes()] == kept
    assert [row["step"] for row in rows(tmp_path)] == ["4"]


def test_a_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    other = random_llama(SHAPE.model_copy(update={"layers": 1}), vocab_size=20, end_token=0, seed=0)
    tokens = torch.arange(2000, dtype=torch.int32) % 20
    with pytest.raises(DistillSpecError, match="another shape"):
        pretrain(
            other,
            Windows(tokens, context=16, batch_size=4, seed=0),
            validation_rows(tokens, context=16, rows=8),
            PLAN,
            folder=tmp_path,
            precision=torch.float32,
            report=lambda _: None,
        )


class _Windows(Windows):
    """Something happens when the rows of a step are asked for."""

    happens: Callable[[], None]
    at: int

    def batch(self, step: int) -> torch.Tensor:
        if step == self.at:
            self.happens()
        return super().batch(step)


def run_until(at: int, happens: Callable[[], None], folder: Path) -> None:
    tokens = (torch.arange(2000) * 7 % 20).int()
    windows = _Windows(tokens, context=PLAN.context, batch_size=PLAN.batch_size, seed=0)
    windows.at, windows.happens = at, happens
    pretrain(
        model(),
        windows,
        validation_rows(tokens, context=PLAN.context, rows=8),
        PLAN,
        folder=folder,
        precision=torch.float32,
        report=lambda _: None,
    )


def without_clock(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder)]


def test_an_interrupt_between_validations_saves_its_step(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_until(5, lambda: os.kill(os.getpid(), signal.SIGINT), tmp_path / "parts")
    assert read_state(tmp_path / "parts" / "state.pt")["step"] == 6
    parts, _ = run(tmp_path / "parts")
    assert without_clock(tmp_path / "parts") == without_clock(tmp_path / "whole")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


def test_no_row_is_lost_between_metrics_and_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends after the row of step 8, before its state."""
    written = pretrain_module.write_state

    def ends(state: dict[str, Any], path: Path, previous: Path | None = None) -> None:
        if state["step"] == 8:
            raise KeyboardInterrupt
        written(state, path, previous)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain_module, "write_state", ends)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == ["4", "8"]
    with (tmp_path / "metrics.csv").open("a") as handle:
        handle.write("9,57")  # a row that was being written
    run(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == ["4", "8", "12"]


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path) -> None:
    whole, _ = run(tmp_path)
    state = tmp_path / "state.pt"
    damaged = bytearray(state.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    state.write_bytes(damaged)
    again, _ = run(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == ["4", "8", "12"]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_step_of_thousands_of_digits_in_the_log_is_no_row(tmp_path: Path) -> None:
    log = tmp_path / "metrics.csv"
    log.write_bytes(b"step,x\n3,1\r\n" + b"9" * 5001 + b",1\r\n8,1\r\n")
    pretrain_module._keep_rows(log, 5)
    assert log.read_text().splitlines()[1:] == ["3,1"]

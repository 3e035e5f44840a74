"""Pretraining of a causal language model from random weights (verb `pretrain`).

Muon trains the hidden matrices, AdamW everything else. The learning rate has a warm-up, a constant
part and a linear decay. The constant part makes a run extensible: raising `max_steps` before the
decay begins gives the same run as the larger number from the start. There is one process. The rows
of a step depend only on (seed, step), so a killed run repeats the bits of an uninterrupted one.
"""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distillspec.corpus.batches.windows import Windows
from distillspec.divergence.comparison import TokenLikelihood
from distillspec.divergence.logit_rows import ModelRows
from distillspec.divergence.row_pass import weighted_sums
from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model
from distillspec.models.runners.attention import fast_whole_rows
from distillspec.models.surgery.hidden_states import hidden_states, output_head
from distillspec.recipe.pretraining import PretrainConfig
from distillspec.runtime.atomic import replacing_file
from distillspec.runtime.interrupts import StopRequest
from distillspec.runtime.lock import check_still_there
from distillspec.runtime.os_errors import explain
from distillspec.runtime.plain_files import check_regular
from distillspec.runtime.typed import typed
from distillspec.training.finite import all_finite
from distillspec.training.pretrain_optimizer import optimizers, rate_share
from distillspec.training.state_file import previous_of, read_state, restoring, settle, write_state

log = logging.getLogger(__name__)

_SAVE_SECONDS = 600.0  # between two states, if validations are further apart

COLUMNS = ("step", "tokens", "seconds", "train_nats_per_token", "validation_nats_per_token")


class PretrainProgress(NamedTuple):
    """One row of metrics.csv.

    Attributes:
        step: Steps done.
        tokens: Tokens trained on so far, repeats included.
        seconds: Time of the run so far.
        train_nats_per_token: Mean loss since the last validation.
        validation_nats_per_token: Loss on the held-out rows.
    """

    step: int
    tokens: int
    seconds: float
    train_nats_per_token: float
    validation_nats_per_token: float


class PretrainState(NamedTuple):
    """The progress that a saved state holds.

    Attributes:
        step: Steps done.
        seconds: Time of the run so far.
        losses: Of the steps since the last validation, [] each.
    """

    step: int
    seconds: float
    losses: list[Tensor]


def mean_nats(model: nn.Module, rows: Tensor) -> Tensor:
    """Mean cross entropy of all tokens but the first of each row.

    Args:
        model: Has a plain output head.
        rows: Long [B, T].

    Returns:
        Scalar, nats per token.
    """
    hidden = hidden_states(model, rows, torch.ones_like(rows, dtype=torch.bool))
    head = output_head(model)
    assert head is not None, "pretraining builds models with a plain head"
    # The state at position t predicts token t + 1.
    labels = rows[:, 1:].reshape(-1)
    sums = weighted_sums(
        ModelRows(hidden[:, :-1].reshape(labels.numel(), -1), head),
        TokenLikelihood(labels),
        weights=torch.ones(labels.numel(), device=rows.device),
        temperature=1.0,
        chunk_tokens=1024,
    )
    return sums.divergence / sums.tokens


def pretrain(
    model: nn.Module,
    windows: Windows,
    validation: Tensor,
    plan: PretrainConfig,
    *,
    folder: Path,
    precision: torch.dtype,
    report: Callable[[PretrainProgress], None],
) -> PretrainProgress:
    """Train `model` in place until plan.max_steps.

    The run continues after `folder`/state.pt if the file exists. A row of metrics.csv is written
    before the state of its step, so a killed run loses no row; a resumed run drops rows after its
    state. On SIGINT and SIGTERM the run finishes its step, saves the state and stops.

    Args:
        model: Causal language model with a plain output head.
        windows: Gives the rows of each step.
        validation: Held-out rows, long [R, T].
        plan: Steps, rates and schedule.
        folder: Receives state.pt and metrics.csv.
        precision: Dtype of matrix products (autocast).
        report: Called after each validation.

    Returns:
        The last row of metrics.csv.

    Raises:
        DistillSpecError: A loss is not finite, or the state belongs to another model.
        KeyboardInterrupt: A signal stopped the run.
    """
    stop = StopRequest()
    stop.wait_for_steps()
    with stop.watching():
        return _pretrain(model, windows, validation, plan, folder, precision, report, stop)


def _pretrain(
    model: nn.Module,
    windows: Windows,
    validation: Tensor,
    plan: PretrainConfig,
    folder: Path,
    precision: torch.dtype,
    report: Callable[[PretrainProgress], None],
    stop: StopRequest,
) -> PretrainProgress:
    state_file, metrics_file = folder / "state.pt", folder / "metrics.csv"
    steppers = optimizers(model, plan)
    step, spent, losses = _restore(state_file, model, steppers)
    _keep_rows(metrics_file, step)
    tokens_per_step = windows.batch_size * windows.context
    # The clock reads as if the run had never stopped.
    start, saved_at = time.perf_counter() - spent, spent
    progress = PretrainProgress(step, step * tokens_per_step, spent, math.nan, math.nan)
    model.train()
    if step >= plan.max_steps:
        held_out = held_out_nats(model, validation, windows.batch_size, precision)
        return progress._replace(validation_nats_per_token=held_out)
    while step < plan.max_steps:
        rows = windows.batch(step).to(validation.device)
        losses.append(_train_step(model, rows, steppers, step, plan, precision))
        step += 1
        if step % plan.validate_every_steps == 0 or step == plan.max_steps:
            held_out = held_out_nats(model, validation, windows.batch_size, precision)
            progress = PretrainProgress(
                step,
                step * tokens_per_step,
                time.perf_counter() - start,
                float(torch.stack(losses).mean()),
                held_out,
            )
            losses.clear()
            total = progress.train_nats_per_token + held_out
            _check_finite(math.isfinite(total), "loss is", step, state_file)
            _append(metrics_file, progress)
        # Save after each validation, on a stop request, and when a kill would lose minutes.
        spent, is_validated = time.perf_counter() - start, progress.step == step
        if is_validated or stop.is_made or spent - saved_at >= _SAVE_SECONDS:
            check_still_there(folder)
            _check_finite(all_finite(model), "weights are", step, state_file)
            _save(state_file, model, steppers, PretrainState(step, spent, losses))
            saved_at = spent
        if is_validated:
            report(progress)
        # A request at the last step changes nothing: the run is complete.
        if stop.is_made and step < plan.max_steps:
            raise stop.interrupt()
    return progress


def _train_step(
    model: nn.Module,
    rows: Tensor,
    steppers: list[torch.optim.Optimizer],
    step: int,
    plan: PretrainConfig,
    precision: torch.dtype,
) -> Tensor:
    """Forward, backward and update on `rows`, long [B, T]; returns the loss, [] nats per token."""
    autocast = _autocast(next(model.parameters()).device.type, precision)
    with autocast, fast_whole_rows(bare_model(model), precision):
        loss = mean_nats(model, rows)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm)
    share = rate_share(step, plan)
    for stepper in steppers:
        for group in stepper.param_groups:
            group["lr"] = group["peak"] * share
        stepper.step()
        stepper.zero_grad()
    return loss.detach()


@torch.no_grad()
def held_out_nats(model: nn.Module, rows: Tensor, batch_size: int, precision: torch.dtype) -> float:
    """Mean nats per token over all rows.

    Args:
        model: Set to eval mode and back to training mode.
        rows: Held-out rows, long [R, T].
        batch_size: Rows of one forward.
        precision: Dtype of matrix products.
    """
    model.eval()
    with _autocast(rows.device.type, precision):
        parts = [(mean_nats(model, part), part.shape[0]) for part in rows.split(batch_size)]
    model.train()
    return float(sum(float(mean) * n for mean, n in parts)) / rows.shape[0]


def _autocast(device: str, precision: torch.dtype) -> AbstractContextManager[Any]:
    return torch.autocast(device, dtype=precision, enabled=precision != torch.float32)


def _check_finite(is_finite: bool, what: str, step: int, state_file: Path) -> None:
    if not is_finite:
        raise DistillSpecError(
            f"the {what} not finite at step {step}",
            where=f"pretraining; the last good state is {state_file}",
            fix="lower train.matrix_rate and train.other_rate, then start again: the run resumes",
        )


def _save(
    path: Path, model: nn.Module, steppers: list[torch.optim.Optimizer], at: PretrainState
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizers": [stepper.state_dict() for stepper in steppers],
        "step": at.step,
        "seconds": at.seconds,
        "losses": torch.stack(at.losses) if at.losses else torch.zeros(0),
    }
    write_state(state, path, previous_of(path))


class _At(NamedTuple):
    step: int
    seconds: float


def _restore(path: Path, model: nn.Module, steppers: list[torch.optim.Optimizer]) -> PretrainState:
    """Load the state at `path` into model and optimizers; step 0 if there is none."""
    settle(path)
    if not path.exists():
        return PretrainState(0, 0.0, [])
    state = read_state(path, ("model", "optimizers", "step", "seconds"))
    with restoring(path):
        try:
            model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise DistillSpecError(
                "the saved state belongs to a model of another shape",
                where=str(path),
                fix="give the recipe another name, or delete that run folder",
            ) from error
        for stepper, saved in zip(steppers, state["optimizers"], strict=True):
            stepper.load_state_dict(saved)
        at: _At = typed(_At, {name: state[name] for name in _At._fields})
        # States of an earlier version have no losses: it saved only after validations.
        losses = state.get("losses", torch.zeros(0)).to(next(model.parameters()).device)
        return PretrainState(at.step, at.seconds, [loss.reshape(()) for loss in losses])


_DIGITS = 18  # of a step


def _keep_rows(path: Path, step: int) -> None:
    """Drop the rows of metrics.csv after `step`, which the resumed run will write again."""
    lines = [",".join(COLUMNS) + "\r\n"]
    check_regular(path, "the log of this training", "move it out of the run folder")
    if path.exists():
        with path.open(encoding="utf-8", errors="replace", newline="") as handle:
            lines += [
                line for line in handle if _is_row(line) and int(line.partition(",")[0]) <= step
            ]
    with replacing_file(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8", newline="")


def _is_row(line: str) -> bool:
    """Whether the line is complete and begins with a possible step number."""
    step = line.partition(",")[0]
    return line.endswith("\n") and step.isdecimal() and len(step) <= _DIGITS


def _append(path: Path, progress: PretrainProgress) -> None:
    values = [progress.step, progress.tokens, *(f"{value:.5g}" for value in progress[2:])]
    try:
        with path.open("a", newline="") as handle:
            csv.writer(handle).writerow(values)
    except OSError as error:
        raise explain(error, path) from error

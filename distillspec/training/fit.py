"""`fit` trains a draft from a recipe's objects to a run folder: the entry of `training`."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from distillspec.corpus.batches.data_module import PromptRows
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.models.surgery.trainable import (
    check_trains_as_it_decodes,
    checkpoint_activations,
    compile_forward,
    freeze_embeddings,
)
from distillspec.models.vocabulary.eos_tokens import find_eos_tokens
from distillspec.models.vocabulary.tokenizer_pair import padding_token
from distillspec.recipe.schema import Recipe
from distillspec.runtime.atomic import make_folder
from distillspec.runtime.interrupts import StopRequest
from distillspec.runtime.lock import run_lock
from distillspec.runtime.world import World
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.callback import ProbeMeasure, TrainingCallback, is_over
from distillspec.training.inference_copy import InferenceCopy
from distillspec.training.module import DistillModule
from distillspec.training.objective import Objective
from distillspec.training.process_plan import ProcessPlan
from distillspec.training.progress import make_reporter
from distillspec.training.resume import (
    BEST,
    LAST,
    Position,
    load_best,
    load_position,
    note_best,
    settle_last,
)
from distillspec.training.rollout import Rollout
from distillspec.training.running_average import ExponentialMovingAverage
from distillspec.training.step import Step
from distillspec.training.trainer import make_trainer, quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class FitOutcome(NamedTuple):
    """What a finished run reports.

    Attributes:
        steps: Optimizer steps, all starts of the run together.
        seconds: Of training over all starts; probes and checkpoints do not count.
        seconds_by_phase: Rollout, target, update, probe and checkpoint, on rank 0.
        response_tokens: Tokens in the loss, over all starts.
        tokens_before: Those of them that earlier starts trained on.
        best_step: Step whose weights `best.ckpt` holds.
        best_alpha: Of the best step, in [0, 1]; NaN where the probe does not measure it.
        best_nats: Held-out loss of the best step, nats; None where the probe does not measure it.
        peak_memory_bytes: Of the GPU; on a CPU of the process, from its beginning.
    """

    steps: int
    seconds: float
    seconds_by_phase: dict[str, float]
    response_tokens: int
    tokens_before: int
    best_step: int
    best_alpha: float
    best_nats: float | None
    peak_memory_bytes: int

    def record(self) -> dict[str, Any]:
        """The fields for JSON, which has no NaN: None replaces it."""
        return {name: None if value != value else value for name, value in self._asdict().items()}

    def best(self) -> str:
        """Describe the best step for a user."""
        step = f"at step {self.best_step}"
        if not self.best_step:
            step += ": no later step was better than the draft before training"
        if math.isfinite(self.best_alpha):
            return f"best alpha {self.best_alpha:.4f} {step}"
        if self.best_nats is not None:
            return f"lowest held-out loss {self.best_nats:.4f} nats {step}"
        return f"step {self.best_step}, the last"


@dataclass(frozen=True)
class FitInputs:
    """A recipe with the objects that it describes.

    Attributes:
        recipe: How to train.
        draft: Model that is trained in place. Its weights are float32 (the masters);
            `hardware.precision` is the dtype of matrix products.
        target: None if training needs none: with `cached` on stored text alone, or by "nll".
        tokenizer: The pair's.
        data_module: Gives the rows of each step.
        probe: Chooses the best checkpoint; without a probe the last step is the best.
        eos_token_ids: End sampled responses; None for the draft's own.
        vocab_size: Tokens that target and draft share; None if they share all.
        reference: Draft that token selection compares with.
        cached: Cached top-k logits of the stored text, read in place of the target.
    """

    recipe: Recipe
    draft: nn.Module
    target: FrozenTarget | None
    tokenizer: PreTrainedTokenizerBase
    data_module: PromptRows
    probe: ProbeMeasure | None
    eos_token_ids: frozenset[int] | None = None
    vocab_size: int | None = None
    reference: FrozenTarget | None = None
    cached: CachedTopKTarget | None = None


def fit(
    inputs: FitInputs,
    *,
    folder: Path,
    label: str,
    resume: bool,
    on_checkpoint: Callable[[int], None] | None = None,
) -> FitOutcome:
    """Train the draft and leave it with the weights of the best probe.

    A run ends after `max_steps`, or after `max_minutes` of training. Probes and checkpoints do not
    count, so a distilled draft and its control train equally long. With `max_minutes` the learning
    rate depends on the clock. Without it, a resumed run gives the bits of an uninterrupted one.

    Sharded weights (fsdp2, zero3) stay as the strategy left them: load best.ckpt into a fresh draft
    with `resume.load_best`.

    Args:
        inputs: Recipe, models and data.
        folder: Receives metrics.csv, tensorboard/, last.ckpt and best.ckpt.
        label: Name of the draft in progress lines.
        resume: Continue after the last.ckpt in `folder`, if it exists.
        on_checkpoint: Called at each checkpoint with the response tokens since this start.

    Raises:
        DistillSpecError: Another run uses the folder, the disk is full, a loss or gradient is not
            finite, a checkpoint is damaged, or the processes cannot share a batch.
    """
    processes = ProcessPlan.of(inputs.recipe, World.from_environment())
    eos_token_ids = inputs.eos_token_ids or find_eos_tokens(inputs.draft, inputs.tokenizer).ids
    with quiet(), _locked(folder, processes.world):
        # 1. The step: a new one, or the one that last.ckpt was saved after.
        step = _make_step(inputs, processes, eos_token_ids, folder, resume=resume)
        tokens_before = step.position.response_tokens
        # 2. The steps that remain. A finished run that is started again has none.
        if not is_over(step.position, inputs.recipe.distill):
            _train(inputs, step, processes, folder, label, on_checkpoint)
        # 3. The weights of the best step.
        if not processes.is_sharded:
            load_best(inputs.draft, folder / BEST)
    return _outcome(step, tokens_before, processes.accelerator)


def _make_rollout(inputs: FitInputs, world: World, eos_token_ids: frozenset[int]) -> Rollout:
    return Rollout(
        inputs.recipe.distill,
        inputs.target,
        max_new_tokens=inputs.recipe.data.max_response_tokens,
        eos_token_ids=eos_token_ids,
        pad_token=padding_token(inputs.tokenizer, inputs.vocab_size, min(eos_token_ids)),
        vocab_size=inputs.vocab_size,
        processes=world.size,
    )


def _prepare_draft(draft: nn.Module, recipe: Recipe) -> None:
    if recipe.optimizer.freeze_embeddings:
        freeze_embeddings(draft)
    if recipe.hardware.gradient_checkpointing:
        checkpoint_activations(draft)
    if recipe.hardware.compile:
        compile_forward(draft)


def _saved_position(inputs: FitInputs, rollout: Rollout, folder: Path, world: World) -> Position:
    """The position of last.ckpt, with data and rollout moved there; step 0 without the file."""
    settle_last(folder / LAST, world)
    if not (folder / LAST).exists():
        return Position()
    position = load_position(folder / LAST, inputs.data_module, rollout, world.rank)
    note_best(folder / BEST, position)
    return position


def _make_step(
    inputs: FitInputs,
    processes: ProcessPlan,
    eos_token_ids: frozenset[int],
    folder: Path,
    *,
    resume: bool,
) -> Step:
    """The step with all that it calls, at the position of last.ckpt if `resume`."""
    # 1. Make the rollout, then bring the draft into the form that is trained.
    recipe, draft = inputs.recipe, inputs.draft
    rollout = _make_rollout(inputs, processes.world, eos_token_ids)
    rollout.check(draft)
    _prepare_draft(draft, recipe)
    # 2. Read the position. Weights and optimizer are restored once the strategy is set up.
    position = Position()
    if resume:
        position = _saved_position(inputs, rollout, folder, processes.world)
    inputs.data_module.follow(position)
    # 3. The average starts at the weights that the draft has now; a resumed run replaces it.
    average = None
    if recipe.optimizer.ema is not None:
        assert not processes.is_sharded, "the recipe's own check refuses ema with sharded weights"
        average = ExponentialMovingAverage(draft, recipe.optimizer.ema)
    return Step(
        recipe,
        [
            Objective(
                phase,
                inputs.target,
                inputs.reference,
                inputs.cached if phase.cached_logits is not None else None,
                inputs.vocab_size,
            )
            for phase in recipe.distill.phases
        ],
        rollout,
        InferenceCopy(
            draft,
            processes.dtype,
            sharded=processes.is_sharded,
            compiled=recipe.hardware.compile,
        ),
        processes=processes,
        position=position,
        average=average,
        stop=StopRequest(says=not processes.world.rank),
    )


def _train(
    inputs: FitInputs,
    step: Step,
    processes: ProcessPlan,
    folder: Path,
    label: str,
    on_checkpoint: Callable[[int], None] | None,
) -> None:
    """Train to the end of the plan, or raise the interrupt that stopped the run."""
    callback = TrainingCallback(
        step,
        inputs.draft,
        inputs.data_module,
        inputs.probe,
        make_reporter(processes.world.rank),
        folder=folder,
        label=label,
        on_checkpoint=on_checkpoint,
    )
    steps_done = step.position.step
    trainer = make_trainer(inputs.recipe, processes, callback, folder, label, steps_done)
    # The frozen models are no submodules, so Lightning does not move them.
    for frozen in (inputs.target, inputs.reference):
        if frozen is not None:
            frozen.to(trainer.strategy.root_device)
    check_trains_as_it_decodes(inputs.draft)
    inputs.draft.train()  # Lightning warns about models in eval mode; each step sets its own mode
    module = DistillModule(inputs.draft, step, fsdp2=processes.strategy == "fsdp2")
    try:
        trainer.fit(module, inputs.data_module)
    except SystemExit:
        # Lightning turns a KeyboardInterrupt into an exit.
        if callback.interrupt is None:
            raise
    if callback.interrupt is not None:
        raise callback.interrupt from None


def _outcome(step: Step, tokens_before: int, accelerator: str) -> FitOutcome:
    position = step.position
    assert position.best_step is not None
    return FitOutcome(
        steps=position.step,
        seconds=position.training_seconds,
        seconds_by_phase=dict(step.clock.seconds),
        response_tokens=position.response_tokens,
        tokens_before=tokens_before,
        best_step=position.best_step,
        best_alpha=position.best_alpha,
        best_nats=position.best_nats,
        peak_memory_bytes=_peak_memory(accelerator),
    )


@contextmanager
def _locked(folder: Path, world: World) -> Iterator[None]:
    """Make the folder; rank 0 locks it for all processes."""
    make_folder(folder)
    if world.rank:
        yield
        return
    with run_lock(folder):
        yield


def _peak_memory(accelerator: str) -> int:
    if accelerator == "cuda":
        return torch.cuda.max_memory_allocated()
    # ru_maxrss is in bytes on macOS, in KiB elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

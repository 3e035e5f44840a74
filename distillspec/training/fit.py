"""Training, from a recipe's objects to a run folder: the one entry of this room."""

from __future__ import annotations

import importlib.util
import logging
import math
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import nn

from distillspec.errors import DistillSpecError
from distillspec.models.loading.precision import fast_dtype
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.models.surgery.trainable import (
    check_trains_as_it_decodes,
    checkpoint_activations,
    compile_forward,
    freeze_embeddings,
)
from distillspec.models.vocabulary.eos_tokens import stop_ids
from distillspec.models.vocabulary.tokenizer_pair import padding_token
from distillspec.recipe.schema import HardwareConfig, Recipe
from distillspec.runtime.atomic import make_folder
from distillspec.runtime.interrupts import StopRequest
from distillspec.runtime.lock import run_lock
from distillspec.runtime.world import World
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.callback import ProbeMeasure, TrainingCallback, is_over
from distillspec.training.clock import StageClock
from distillspec.training.inference_copy import InferenceCopy
from distillspec.training.metrics_csv import MetricsCsv
from distillspec.training.module import DistillModule
from distillspec.training.objective import Objective
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
from distillspec.training.state_file import AtomicCheckpointIO
from distillspec.training.step import Step
from distillspec.training.strategy import SHARDED, ZERO, make_strategy, strategy_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class FitOutcome(NamedTuple):
    """seconds: of training, probes and checkpoints not counted, over all resumptions.

    response_tokens: in the loss, likewise; tokens_before: of them, what a checkpoint had brought.
    seconds_by_phase: rollout, target, update, probe, checkpoint, on rank 0. best_alpha, best_nats:
    by whichever the probe measures, nan and None else. peak_memory_bytes: of the device; on
    a CPU of the process, all that it did before included.
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
        """For JSON, which has no nan: None in its place."""
        return {name: None if value != value else value for name, value in self._asdict().items()}

    def best(self) -> str:
        """What made the best step the best, in words."""
        where = f"at step {self.best_step}"
        if not self.best_step:
            where += ": as it began, nothing better was found"
        if math.isfinite(self.best_alpha):
            return f"best alpha {self.best_alpha:.4f} {where}"
        if self.best_nats is not None:
            return f"lowest held-out loss {self.best_nats:.4f} nats {where}"
        return f"step {self.best_step}, the last"


def fit(
    recipe: Recipe,
    *,
    draft: nn.Module,
    target: FrozenTarget | None,
    tokenizer: PreTrainedTokenizerBase,
    data_module: LightningDataModule,
    probe: ProbeMeasure | None,
    folder: Path,
    resume: bool,
    label: str,
    eos_token_ids: frozenset[int] | None = None,
    vocab_size: int | None = None,
    reference: FrozenTarget | None = None,
    cached: CachedTopKTarget | None = None,
    on_checkpoint: Callable[[int], None] | None = None,
) -> FitOutcome:
    """Train `draft` as `recipe` says and leave it with the weights of the best probe.

    draft: float32 weights (the masters; products are made in `hardware.precision`). target: not
    needed by the divergence "nll", nor beside a `cached` one, which every predicted token is read
    from. folder: receives metrics.csv, tensorboard/, last.ckpt and best.ckpt; with `resume` the run
    goes on after its last.ckpt, if it has one. eos_token_ids: of sampled responses; default: the
    draft's. vocab_size: tokens common to both models. reference: of token selection.
    on_checkpoint: told of each checkpoint, with the response tokens since this start.

    A run ends after `max_steps`, or `max_minutes` of training: probes and checkpoints do not count,
    so that a distilled draft and its control train equally long. With `max_minutes` the learning
    rate depends on the clock; without, a resumed run repeats the uninterrupted one bit for bit.

    Sharded weights (fsdp2, zero3) stay as the strategy left them: load best.ckpt into a fresh draft
    with `resume.load_best`.

    Errors: DistillSpecError for another run in this folder, a full disk, a loss or gradient that is
    not finite, a damaged checkpoint, a batch that the processes cannot share.
    """
    world = World.from_environment()
    plan = recipe.distill
    name = strategy_name(recipe.hardware, world)
    rows = _rows_per_process(plan.batch_size, world.size)
    micro_batch_size = min(plan.micro_batch_size or rows, rows)
    accelerator = _accelerator(recipe.hardware)
    dtype = _dtype(recipe.hardware, accelerator)
    eos_token_ids = eos_token_ids or stop_ids(draft, tokenizer).ids
    with _quiet(), _alone(folder, world):
        rollout = Rollout(
            plan,
            target,
            max_new_tokens=recipe.data.max_response_tokens,
            eos_token_ids=eos_token_ids,
            pad_token=padding_token(tokenizer, vocab_size, min(eos_token_ids)),
            vocab_size=vocab_size,
            processes=world.size,
        )
        rollout.check(draft)
        _make_ready(draft, recipe)
        position = Position()
        if resume:
            settle_last(folder / LAST, world)
        if resume and (folder / LAST).exists():
            position = load_position(folder / LAST, data_module, rollout, world.rank)
            note_best(folder / BEST, position)
        tokens_before = position.response_tokens
        clock = StageClock(torch.device(accelerator))
        clock.seconds.update(position.seconds)
        step = Step(
            recipe,
            Objective(plan, target, reference, cached, vocab_size),
            rollout,
            InferenceCopy(draft, dtype, sharded=name in SHARDED, compiled=recipe.hardware.compile),
            clock=clock,
            position=position,
            autocast_dtype=dtype,
            micro_batch_size=micro_batch_size,
            average=_average(draft, recipe, name),
            stop=StopRequest(says=not world.rank),
        )
        if not is_over(position, plan):
            milestones = TrainingCallback(
                step,
                draft,
                data_module,
                probe,
                make_reporter(world.rank),
                folder=folder,
                label=label,
                on_checkpoint=on_checkpoint,
            )
            trainer = Trainer(
                accelerator="gpu" if accelerator == "cuda" else "cpu",
                devices=world.per_node,
                num_nodes=world.size // world.per_node,
                strategy=make_strategy(
                    name,
                    world,
                    clip_norm=recipe.optimizer.clip_norm,
                    micro_batches=-(-rows // micro_batch_size),
                ),
                plugins=[] if name in ZERO else [AtomicCheckpointIO()],
                logger=_loggers(recipe, folder, position, label),
                callbacks=[milestones],
                max_epochs=-1,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                num_sanity_val_steps=0,
                default_root_dir=folder,
            )
            for frozen in (target, reference):
                if frozen is not None:
                    frozen.to(trainer.strategy.root_device)
            check_trains_as_it_decodes(draft)
            draft.train()  # Lightning warns of all else; each step sets the mode it wants
            try:
                trainer.fit(DistillModule(draft, step, fsdp2=name == "fsdp2"), data_module)
            except SystemExit:
                if milestones.interrupt is None:
                    raise
            if milestones.interrupt is not None:
                raise milestones.interrupt from None
        if name not in SHARDED:
            load_best(draft, folder / BEST)
    assert position.best_step is not None
    return FitOutcome(
        steps=position.step,
        seconds=position.training_seconds,
        seconds_by_phase=dict(clock.seconds),
        response_tokens=position.response_tokens,
        tokens_before=tokens_before,
        best_step=position.best_step,
        best_alpha=position.best_alpha,
        best_nats=position.best_nats,
        peak_memory_bytes=_peak_memory(accelerator),
    )


def _make_ready(draft: nn.Module, recipe: Recipe) -> None:
    if recipe.optimizer.freeze_embeddings:
        freeze_embeddings(draft)
    if recipe.hardware.gradient_checkpointing:
        checkpoint_activations(draft)
    if recipe.hardware.compile:
        compile_forward(draft)


def _average(draft: nn.Module, recipe: Recipe, strategy: str) -> ExponentialMovingAverage | None:
    if recipe.optimizer.ema is None:
        return None
    assert strategy not in SHARDED, "the recipe's own check has refused it"
    return ExponentialMovingAverage(draft, recipe.optimizer.ema)


def _rows_per_process(batch_size: int, processes: int) -> int:
    if batch_size % processes:
        raise DistillSpecError(
            f"{batch_size} sequences cannot be shared equally by {processes} processes",
            where="distill.batch_size",
            fix=f"set distill.batch_size={batch_size + -batch_size % processes}",
        )
    return batch_size // processes


def _accelerator(hardware: HardwareConfig) -> str:
    if hardware.device != "auto":
        if hardware.device == "cuda" and not torch.cuda.is_available():
            raise DistillSpecError(
                "there is no GPU that torch can use",
                where="hardware.device",
                fix="set hardware.device=auto, or install a torch build for your GPU",
            )
        return hardware.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(hardware: HardwareConfig, accelerator: str) -> torch.dtype:
    if hardware.precision == "auto":
        return fast_dtype(accelerator)
    return torch.bfloat16 if hardware.precision == "bfloat16" else torch.float32


def _loggers(recipe: Recipe, folder: Path, position: Position, label: str) -> list[Logger]:
    rows = MetricsCsv(folder / "metrics.csv")
    rows.start_after(position.step if position.step else None)
    curves = TensorBoardLogger(folder, name="", version="tensorboard", purge_step=position.step + 1)
    loggers: list[Logger] = [rows, curves]
    project = recipe.hardware.wandb_project
    if project is not None:
        if importlib.util.find_spec("wandb") is None:
            raise DistillSpecError(
                "Weights & Biases is not installed",
                where="hardware.wandb_project",
                fix="pip install wandb, or leave hardware.wandb_project out",
            )
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(WandbLogger(project=project, name=f"{recipe.name}/{label}", save_dir=folder))
    return loggers


@contextmanager
def _alone(folder: Path, world: World) -> Iterator[None]:
    """Rank 0 holds the folder for all."""
    make_folder(folder)
    if world.rank:
        yield
        return
    with run_lock(folder):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Without advice on things that are meant as they are here."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*You have overridden `transfer_batch_to_device`.*",
            ".*GPU available but not used.*",
            ".*isinstance.treespec, LeafSpec.*",  # Lightning on a newer torch
            ".*torch.distributed.* is deprecated.*",  # DeepSpeed on a newer torch
            ".*each worker will save a shard of the checkpoint.*",
        ):
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _peak_memory(accelerator: str) -> int:
    if accelerator == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

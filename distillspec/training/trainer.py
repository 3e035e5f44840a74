"""Lightning's trainer as `fit` uses it: our checkpoints, our loggers, our progress lines."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import Recipe
from distillspec.training.callback import TrainingCallback
from distillspec.training.metrics_csv import MetricsCsv
from distillspec.training.process_plan import ProcessPlan
from distillspec.training.state_file import AtomicCheckpointIO
from distillspec.training.strategy import ZERO, make_strategy


def make_trainer(
    recipe: Recipe,
    processes: ProcessPlan,
    callback: TrainingCallback,
    folder: Path,
    label: str,
    steps_done: int,
) -> Trainer:
    """Build the trainer, and cut metrics.csv back to the step that the run continues after.

    Args:
        recipe: Its clip norm and Weights & Biases project are read.
        processes: Strategy and device.
        callback: Probes, logs and saves after each step.
        folder: Run folder, which receives the curves.
        label: Name of the draft.
        steps_done: Steps that an earlier start has trained.

    Raises:
        DistillSpecError: Weights & Biases is asked for and not installed, or metrics.csv cannot be
            written.
    """
    world = processes.world
    return Trainer(
        accelerator="gpu" if processes.accelerator == "cuda" else "cpu",
        devices=world.per_node,
        num_nodes=world.size // world.per_node,
        strategy=make_strategy(
            processes.strategy,
            world,
            clip_norm=recipe.optimizer.clip_norm,
            micro_batches=processes.micro_batches,
        ),
        # DeepSpeed's strategy writes its checkpoint folder itself.
        plugins=[] if processes.strategy in ZERO else [AtomicCheckpointIO()],
        logger=_loggers(recipe, folder, label, steps_done),
        callbacks=[callback],
        # The data module is endless: the callback ends the run.
        max_epochs=-1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        # The data module gives each process its own rows.
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings of Lightning and torch about choices that this file makes on purpose."""
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


def _loggers(recipe: Recipe, folder: Path, label: str, steps_done: int) -> list[Logger]:
    metrics = MetricsCsv(folder / "metrics.csv")
    metrics.start_after(steps_done if steps_done else None)
    # TensorBoard hides the steps after the checkpoint: the resumed run logs them again.
    curves = TensorBoardLogger(folder, name="", version="tensorboard", purge_step=steps_done + 1)
    loggers: list[Logger] = [metrics, curves]
    project = recipe.hardware.wandb_project
    if project is not None:
        if importlib.util.find_spec("wandb") is None:
            raise DistillSpecError(
                "Weights & Biases is not installed",
                where="hardware.wandb_project",
                fix="pip install wandb, or remove hardware.wandb_project",
            )
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(WandbLogger(project=project, name=f"{recipe.name}/{label}", save_dir=folder))
    return loggers

"""How a run is spread over processes: strategy, device, precision and share of each batch."""

from __future__ import annotations

from typing import NamedTuple

import torch

from distillspec.errors import DistillSpecError
from distillspec.models.loading.precision import fast_dtype
from distillspec.recipe.schema import HardwareConfig, Recipe
from distillspec.runtime.world import World
from distillspec.training.strategy import SHARDED, strategy_name


class ProcessPlan(NamedTuple):
    """The recipe's hardware settings with every "auto" resolved.

    Attributes:
        world: The processes of this run.
        strategy: Name that `strategy.make_strategy` knows.
        accelerator: "cpu" or "cuda".
        dtype: Dtype of matrix products, in training and in decoding.
        rows: Sequences of a step that each process trains on.
        micro_batch_size: Sequences of one forward and backward, at most `rows`.
    """

    world: World
    strategy: str
    accelerator: str
    dtype: torch.dtype
    rows: int
    micro_batch_size: int

    @classmethod
    def of(cls, recipe: Recipe, world: World) -> ProcessPlan:
        """Resolve the plan of this process.

        Args:
            recipe: Its sections `hardware` and `distill` are read.
            world: The processes of this run.

        Raises:
            DistillSpecError: The processes cannot share a batch equally, or there is no GPU.
        """
        strategy = strategy_name(recipe.hardware, world)
        rows = _rows_per_process(recipe.distill.batch_size, world.size)
        accelerator = _accelerator(recipe.hardware)
        return cls(
            world,
            strategy,
            accelerator,
            _dtype(recipe.hardware, accelerator),
            rows,
            micro_batch_size=min(recipe.distill.micro_batch_size or rows, rows),
        )

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds all weights."""
        return self.strategy in SHARDED

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step on each process."""
        return -(-self.rows // self.micro_batch_size)


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

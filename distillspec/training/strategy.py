"""Strategies for one or more processes: plain, DDP, FSDP2, DeepSpeed ZeRO-2/3, on GPUs or CPUs.

A step runs a forward and a backward of the wrapped model for each micro-batch, then an update. So
the step calls the wrapper once per micro-batch; Lightning would call it once per training step. All
strategies average gradients over processes, so the step multiplies the loss by their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    ModelParallelStrategy,
    Strategy,
)
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from distillspec.divergence.reduction import DivergenceSums
from distillspec.models.surgery.trainable import layer_lists
from distillspec.recipe.schema import HardwareConfig
from distillspec.runtime.atomic import replacing_folder
from distillspec.runtime.world import World
from distillspec.training.state_file import (
    POSITION,
    file_sums,
    files_in,
    previous_of,
    write_state,
    write_sums,
)

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

SHARDED = frozenset({"fsdp2", "zero3"})
ZERO = frozenset({"zero2", "zero3"})


def strategy_name(hardware: HardwareConfig, world: World) -> str:
    """The recipe's strategy; "auto" gives plain for a single process and DDP for several."""
    if hardware.strategy != "auto":
        return hardware.strategy
    return "ddp" if world.size > 1 else "plain"


# --- strategies ----------------------------------------------------------------------------------


class PerMicroBatchDDP(DDPStrategy):
    """DDP whose wrapper is called by the training step, once per micro-batch."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        assert self.lightning_module is not None
        return self.lightning_module.training_step(*args, **kwargs)

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Nothing to do: the wrapper's forward has prepared its backward."""

    def post_backward(self, closure_loss: Tensor) -> None:
        """Nothing to do: no reduction was postponed."""


class PerMicroBatchZero(DeepSpeedStrategy):
    """DeepSpeed called once per micro-batch, also on CPU processes.

    DeepSpeed itself runs on gloo. Lightning's two device checks and its device name, which refuse
    CPUs, are replaced below.
    """

    def __init__(self, micro_batches: int, config: dict[str, Any]) -> None:
        super().__init__(config=config)
        self._micro_batches = micro_batches

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        assert self.lightning_module is not None
        return self.lightning_module.training_step(*args, **kwargs)

    def _format_config(self) -> None:
        super()._format_config()
        # Lightning reads this from an option that it refuses with manual optimization.
        assert isinstance(self.config, dict)
        self.config["gradient_accumulation_steps"] = self._micro_batches

    def setup_environment(self) -> None:
        assert self.accelerator is not None
        self.accelerator.setup_device(self.root_device)
        self.setup_distributed()

    def setup_distributed(self) -> None:
        import deepspeed
        from lightning.fabric.utilities.seed import reset_seed

        if self.root_device.type == "cpu":
            # With a C++ compiler DeepSpeed would build a shared-memory operation for minutes, or
            # wait forever for the lock of a killed build. Gloo does the same work.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @property
    def root_device(self) -> torch.device:
        assert self.parallel_devices is not None
        device = self.parallel_devices[self.local_rank]
        return torch.device("cpu", self.local_rank) if device.type == "cpu" else device

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        """Write a folder with a part from each process.

        It is a temporary folder, which gets its final name when all parts are complete.
        """
        goal = Path(self.broadcast(str(filepath)))
        # 1. Rank 0 makes the temporary folder, and all processes learn its name.
        swap: AbstractContextManager[Path | None] = nullcontext(None)
        if self.is_global_zero:
            swap = replacing_folder(goal, ("*",), previous_of(goal))
        with swap as temporary:  # None on ranks other than 0
            parts = self.broadcast(str(temporary))
            # 2. Each process writes its part; rank 0 adds the position of the run.
            super().save_checkpoint(checkpoint, parts, storage_options)
            if temporary is not None:
                position = {name: checkpoint[name] for name in ("position", "data", "rollout")}
                write_state(position, temporary / POSITION)
            # 3. Hash the parts once all of them are complete.
            self.barrier()
            sums = self._sums(Path(parts))
            if temporary is not None:
                write_sums(temporary, sums)
        # 4. Rank 0 has renamed the folder: from here on every process may read it.
        self.barrier()

    def _sums(self, folder: Path) -> dict[str, str]:
        """SHA-256 of all files in `folder`; every process hashes its share of them."""
        local = file_sums(folder, files_in(folder)[self.global_rank :: self.world_size])
        gathered: list[dict[str, str]] = [{}] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(gathered, local)
        else:
            gathered = [local]
        return {name: value for sums in gathered for name, value in sums.items()}


# Strategies whose `load_checkpoint` also loads model and optimizer.
LoadsItself = (DeepSpeedStrategy, ModelParallelStrategy)


def make_strategy(
    name: str, world: World, *, clip_norm: float, micro_batches: int
) -> Strategy | str:
    """Build the Lightning strategy.

    Args:
        name: Result of `strategy_name`.
        world: The processes of this run.
        clip_norm: Largest gradient norm, which DeepSpeed applies itself.
        micro_batches: Micro-batches of a step on each process.

    Returns:
        A strategy, or "auto" for a single plain process.
    """
    if name == "plain":
        return "auto"
    if name == "ddp":
        return PerMicroBatchDDP()
    if name == "fsdp2":
        # Rank 0 gathers complete tensors, and `AtomicCheckpointIO` writes them into one file.
        return ModelParallelStrategy(
            data_parallel_size=world.size,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
        )
    return PerMicroBatchZero(
        micro_batches,
        {
            "zero_optimization": {"stage": 2 if name == "zero2" else 3},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's Adam needs a compiler
            "train_micro_batch_size_per_gpu": 1,  # read only by DeepSpeed's throughput log
            "gradient_clipping": clip_norm,
        },
    )


def shard(draft: nn.Module, mesh: DeviceMesh) -> None:
    """Shard with FSDP2: each transformer layer is a unit, and the remaining weights are another."""
    from torch.distributed.fsdp import fully_shard

    # Inner units first: the last call takes only the weights that are left.
    for layer in chain.from_iterable(layer_lists(draft)):
        fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(draft, mesh=mesh["data_parallel"])


def full_tensors(draft: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The trained parameters with their names, gathered from all processes one after another.

    Every process must iterate to the end. A tensor is valid until the next iteration.
    """
    for name, parameter in draft.named_parameters():
        if not parameter.requires_grad:
            continue
        if isinstance(parameter, DTensor):
            yield name, parameter.full_tensor().detach()
        elif hasattr(parameter, "ds_id"):  # DeepSpeed's mark on a ZeRO-3 partition
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                yield name, parameter.detach()
        else:
            yield name, parameter.detach()


# --- the update ----------------------------------------------------------------------------------


class Update(Protocol):
    """How a step's micro-batches become one change of the weights."""

    def loss(self, *inputs: Any) -> DivergenceSums:
        """The loss of one micro-batch, through the wrapper that shares gradients."""

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        """The context of the forward and backward of one micro-batch."""

    def backward(self, loss: Tensor) -> None: ...

    def apply(self) -> float:
        """Clip the gradient, update the weights, and clear the gradient.

        Returns:
            The norm of the entire gradient before clipping. If it is not finite, the weights may be
            damaged and the caller ends the run.
        """


class PlainUpdate:
    """One process, DDP, FSDP2: torch's own backward, clip and optimizer.

    The weights do not change if the norm is not finite.
    """

    def __init__(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], clip_norm: float
    ) -> None:
        self._model = model
        self._optimizers = list(optimizers)
        self._clip_norm = clip_norm

    def loss(self, *inputs: Any) -> DivergenceSums:
        sums: DivergenceSums = self._model(*inputs)
        return sums

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        # DDP exchanges gradients in the last backward only.
        if isinstance(self._model, DistributedDataParallel) and not last:
            return self._model.no_sync()
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def apply(self) -> float:
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        parameters = [parameter for group in groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._clip_norm)
        # FSDP2: each process has a partial norm; `full_tensor` combines them.
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        total = float(norm)
        for optimizer in self._optimizers:
            if math.isfinite(total):
                optimizer.step()
            optimizer.zero_grad()
        return total


class ZeroUpdate:
    """DeepSpeed: its engine accumulates, clips and steps after the last micro-batch."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def loss(self, *inputs: Any) -> DivergenceSums:
        sums: DivergenceSums = self._engine(*inputs)
        return sums

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        # The engine divides by the number of micro-batches, but the loss is divided by tokens.
        self._engine.backward(loss * self._engine.gradient_accumulation_steps())
        # `step` also counts micro-batches. The last one of a step is left to `apply`.
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()

    def apply(self) -> float:
        self._engine.step()
        return float(self._engine.get_global_grad_norm())


def make_update(trainer: Trainer, *, clip_norm: float) -> Update:
    """The update of the trainer's strategy, once its setup is done."""
    if isinstance(trainer.strategy, PerMicroBatchZero):
        return ZeroUpdate(trainer.strategy.model)
    assert trainer.strategy.model is not None
    return PlainUpdate(trainer.strategy.model, trainer.strategy.optimizers, clip_norm)

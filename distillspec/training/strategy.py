"""One process to many: plain, DDP, FSDP2, DeepSpeed ZeRO-2/3, on GPUs or on CPU processes.

A step is several micro-batches, each one forward and one backward of the wrapped model, then one
update. So every wrapper is called once per micro-batch, not once per training step as Lightning
does it. All of these average gradients over processes: the loss is multiplied by their number.
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
from distillspec.models.surgery.trainable import stacks
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
    """What "auto" stands for: plain with one process, DDP with several."""
    if hardware.strategy != "auto":
        return hardware.strategy
    return "ddp" if world.size > 1 else "plain"


# --- strategies ----------------------------------------------------------------------------------


class PerMicroBatchDDP(DDPStrategy):
    """DDP whose wrapper the training step itself calls, once per micro-batch."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        assert self.lightning_module is not None
        return self.lightning_module.training_step(*args, **kwargs)

    def pre_backward(self, closure_loss: Tensor) -> None:
        """The wrapper's own forward has prepared its backward."""

    def post_backward(self, closure_loss: Tensor) -> None:
        """Nothing was postponed."""


class PerMicroBatchZero(DeepSpeedStrategy):
    """DeepSpeed called once per micro-batch, on CPU processes too.

    Lightning refuses CPUs by two checks and one device name only; DeepSpeed itself runs on gloo.
    """

    def __init__(self, micro_batches: int, config: dict[str, Any]) -> None:
        super().__init__(config=config)
        self._micro_batches = micro_batches

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        assert self.lightning_module is not None
        return self.lightning_module.training_step(*args, **kwargs)

    def _format_config(self) -> None:
        super()._format_config()
        # Lightning takes this from an option that it refuses where the step is ours.
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
            # Else DeepSpeed compiles a shared-memory operation for minutes where there is a C++
            # compiler, and waits for ever for the lock of a build that was killed. Gloo serves.
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
        """A folder with a part from each process; it takes its name when all parts are written."""
        goal = Path(self.broadcast(str(filepath)))
        swap: AbstractContextManager[Path | None] = nullcontext(None)
        if self.is_global_zero:
            swap = replacing_folder(goal, ("*",), previous_of(goal))
        with swap as mine:
            parts = self.broadcast(str(mine))
            super().save_checkpoint(checkpoint, parts, storage_options)
            if mine is not None:
                position = {name: checkpoint[name] for name in ("position", "data", "rollout")}
                write_state(position, mine / POSITION)
            self.barrier()
            sums = self._sums(Path(parts))
            if mine is not None:
                write_sums(mine, sums)
        self.barrier()

    def _sums(self, folder: Path) -> dict[str, str]:
        """SHA-256 of all files in `folder`; every process sums its share of them."""
        mine = file_sums(folder, files_in(folder)[self.global_rank :: self.world_size])
        everyone: list[dict[str, str]] = [{}] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(everyone, mine)
        else:
            everyone = [mine]
        return {name: value for found in everyone for name, value in found.items()}


# Strategies whose `load_checkpoint` itself fills model and optimizer.
LoadsItself = (DeepSpeedStrategy, ModelParallelStrategy)


def make_strategy(
    name: str, world: World, *, clip_norm: float, micro_batches: int
) -> Strategy | str:
    """The Lightning strategy of a name of `strategy_name`; "auto" for one plain process."""
    if name == "plain":
        return "auto"
    if name == "ddp":
        return PerMicroBatchDDP()
    if name == "fsdp2":
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
            "zero_force_ds_cpu_optimizer": False,  # its own Adam needs a compiler
            "train_micro_batch_size_per_gpu": 1,  # only for DeepSpeed's own throughput lines
            "gradient_clipping": clip_norm,
        },
    )


def shard(draft: nn.Module, mesh: DeviceMesh) -> None:
    """FSDP2: each transformer layer is a unit, what remains is another."""
    from torch.distributed.fsdp import fully_shard

    for layer in chain.from_iterable(stacks(draft)):
        fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(draft, mesh=mesh["data_parallel"])


def full_tensors(draft: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The trained parameters by name, one at a time, whole on every process.

    Every process must go through all of them; a tensor is valid until the next is asked for.
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
        """Around the forward and backward of one micro-batch."""

    def backward(self, loss: Tensor) -> None: ...

    def apply(self) -> float:
        """Clip, step, clear; returns the norm of the whole gradient before clipping.

        A norm that is not finite ends the run: the weights may then be spoilt.
        """


class PlainUpdate:
    """One process, DDP, FSDP2: torch's own backward, clip and optimizer.

    The weights stay as they are when the norm is not finite.
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
        if isinstance(self._model, DistributedDataParallel) and not last:
            return self._model.no_sync()
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def apply(self) -> float:
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        parameters = [parameter for group in groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._clip_norm)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        whole = float(norm)
        for optimizer in self._optimizers:
            if math.isfinite(whole):
                optimizer.step()
            optimizer.zero_grad()
        return whole


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
        # The engine divides by the number of micro-batches: ours is divided by tokens already.
        self._engine.backward(loss * self._engine.gradient_accumulation_steps())
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()

    def apply(self) -> float:
        self._engine.step()
        return float(self._engine.get_global_grad_norm())


def make_update(trainer: Trainer, *, clip_norm: float) -> Update:
    """The update that belongs to the trainer's strategy, once its setup is done."""
    if isinstance(trainer.strategy, PerMicroBatchZero):
        return ZeroUpdate(trainer.strategy.model)
    assert trainer.strategy.model is not None
    return PlainUpdate(trainer.strategy.model, trainer.strategy.optimizers, clip_norm)

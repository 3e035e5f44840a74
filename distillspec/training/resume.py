"""Checkpoints: the state that a killed run resumes from, and the best draft so far.

`last.ckpt` holds the draft, the optimizer's state, the position in the run and in the data, and the
responses that may be replayed. The learning rate and every random stream follow from the position.
`best.ckpt` holds the trained weights of the best probe. Neither holds the target. A new checkpoint
replaces the old file only when it is complete. Files load with `weights_only=True`, so they run no
code. `last.previous.ckpt` is the checkpoint before; it replaces a damaged `last.ckpt`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
import torch.distributed
from torch import nn

from distillspec.errors import DistillSpecError
from distillspec.runtime.typed import typed
from distillspec.runtime.world import World
from distillspec.training.running_average import ExponentialMovingAverage
from distillspec.training.state_file import (
    POSITION,
    read_state,
    restoring,
    settle,
    verify,
    write_state,
)
from distillspec.training.strategy import LoadsItself, full_tensors

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

LAST = "last.ckpt"
BEST = "best.ckpt"


@dataclasses.dataclass
class BestResult:
    """The best result of some probes.

    Attributes:
        best_alpha: Highest alpha; NaN if the probe does not measure it.
        best_nats: Lowest held-out loss; None if the probe does not measure it.
    """

    best_alpha: float = math.nan
    best_nats: float | None = None


class Comparable(Protocol):
    """The result of a probe."""

    def beats(self, best: BestResult) -> bool:
        """Whether no earlier draft was better."""
        ...

    def keep(self, best: BestResult) -> None:
        """Store the result in `best`."""


@dataclasses.dataclass
class Position(BestResult):
    """The progress of a run.

    Attributes:
        step: Steps done.
        response_tokens: Tokens in the loss so far, of all processes.
        training_seconds: Training time so far, the mean over processes.
        seconds: By phase, of this process.
        best_step: Step of the best draft; None before the first.
        best_alpha: Of the best step; NaN if the probe does not measure it.
        best_nats: Held-out loss of the best step; None if the probe does not measure it.
        phase: Phase of the schedule that the next step belongs to, from 0.
        probed_alpha: Highest alpha of the probes up to this step; NaN if the probe does not measure
            it. A resumed run repeats them, so a best draft of a later step does not count here.
        probed_nats: Lowest held-out loss of the probes up to this step.
        probes_without_gain: Probes of this phase since the last one with a better draft.
    """

    step: int = 0
    response_tokens: int = 0
    training_seconds: float = 0.0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    best_step: int | None = None
    phase: int = 0
    probed_alpha: float = math.nan
    probed_nats: float | None = None
    probes_without_gain: int = 0

    def note_probe(self, result: Comparable) -> None:
        """Count a probe of the phase of the last step."""
        so_far = BestResult(self.probed_alpha, self.probed_nats)
        if result.beats(so_far):
            result.keep(so_far)
            self.probes_without_gain = 0
        else:
            self.probes_without_gain += 1
        self.probed_alpha, self.probed_nats = so_far.best_alpha, so_far.best_nats


class _Best(NamedTuple):
    """The step whose weights `best.ckpt` holds, and its result."""

    step: int
    alpha: float
    nats: float | None


class HasPosition(Protocol):
    """A data module that saves and restores its position."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class HasReplayBuffer(Protocol):
    """A rollout that stores responses of its process for later steps."""

    def state_dict(self) -> list[dict[str, Any]]: ...

    def load_state_dict(self, of_processes: Sequence[list[dict[str, Any]]], rank: int) -> None: ...


def save_last(
    trainer: Trainer,
    data: HasPosition,
    rollout: HasReplayBuffer,
    position: Position,
    path: Path,
    average: ExponentialMovingAverage | None = None,
) -> None:
    """Write a checkpoint to resume from. Every process must call it.

    Args:
        trainer: Has the weights and the optimizer.
        data: Its position is saved.
        rollout: Its responses are saved, those of each process.
        position: Progress of the run.
        path: `last.ckpt` of the run folder.
        average: Moving average of the weights, if the recipe has one.
    """
    # 1. Rank 0 collects the replay buffers, which differ between processes.
    strategy = trainer.strategy
    responses: list[list[dict[str, Any]]] = [rollout.state_dict()]
    if trainer.world_size > 1:
        is_writer = trainer.is_global_zero
        gathered: list[list[dict[str, Any]]] = [[]] * trainer.world_size
        torch.distributed.gather_object(responses[0], gathered if is_writer else None, dst=0)
        responses = gathered
    # 2. Sharded strategies gather weights and optimizer here: all processes take part.
    state = {
        "state_dict": strategy.lightning_module_state_dict(),
        "optimizer_states": [strategy.optimizer_state(o) for o in strategy.optimizers],
        "position": dataclasses.asdict(position),
        "data": data.state_dict(),
        "rollout": responses,
    }
    if average is not None:
        state["average"] = average.state_dict()
    # 3. What is written, a file or a folder, is the strategy's choice.
    strategy.save_checkpoint(state, path)
    strategy.barrier("last.ckpt")


def settle_last(path: Path, world: World) -> None:
    """Rank 0 moves the newest undamaged checkpoint to `path` before any process reads it.

    Raises:
        DistillSpecError: No checkpoint is undamaged. Every process raises it.
    """
    # Rank 0 sends its failure to all, so that no process waits at a barrier forever.
    failure: list[DistillSpecError | None] = [None]
    if not world.rank:
        try:
            settle(path)
        except DistillSpecError as error:
            failure = [error]
    if world.size > 1 and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(failure)
    if failure[0] is not None:
        raise failure[0]


def load_position(path: Path, data: HasPosition, rollout: HasReplayBuffer, rank: int) -> Position:
    """Restore data and rollout from `last.ckpt`, and return the position of the run.

    Args:
        path: The checkpoint.
        data: Is moved to its saved position.
        rollout: Receives the saved responses of its process.
        rank: This process.

    Raises:
        DistillSpecError: The checkpoint is damaged.
    """
    verify(path)
    # DeepSpeed's folder keeps the position in a file that is readable before its set-up.
    state = read_state(path / POSITION if path.is_dir() else path, ("position", "data"))
    with restoring(path):
        data.load_state_dict(state["data"])
        rollout.load_state_dict(state.get("rollout", []), rank)
        position: Position = typed(Position, state["position"])
        if min(position.step, position.response_tokens, position.training_seconds) < 0:
            raise ValueError("a negative position")
    return position


def note_best(path: Path, position: Position) -> None:
    """Update `position` if `best.ckpt` was written after `last.ckpt`.

    Raises:
        DistillSpecError: `best.ckpt` is damaged, or missing although the run had a best step.
    """
    if not path.exists():
        if position.best_step is not None:
            raise DistillSpecError(
                f"the weights of the best step, {position.best_step}, are missing",
                where=str(path),
                fix="restore the file; or delete last.ckpt in the same folder, and the run trains "
                "from step 0",
            )
        return
    state = read_state(path, ("step", "alpha", "nats"))
    with restoring(path):
        best: _Best = typed(_Best, {name: state[name] for name in _Best._fields})
    # The run may have been killed between a new best.ckpt and the next last.ckpt.
    if position.best_step is None or best.step > position.best_step:
        position.best_step = best.step
        position.best_alpha, position.best_nats = best.alpha, best.nats


def load_tensors(
    trainer: Trainer, path: Path, average: ExponentialMovingAverage | None = None
) -> None:
    """Restore draft, optimizer and average, once the strategy is set up."""
    strategy = trainer.strategy
    state = strategy.load_checkpoint(path, weights_only=True)
    # Strategies that are not `LoadsItself` return the content and restore nothing.
    if not isinstance(strategy, LoadsItself):
        strategy.load_model_state_dict(state)
        strategy.load_optimizer_state_dict(state)
    if average is not None:
        average.load_state_dict(state["average"])


def save_best(trainer: Trainer, draft: nn.Module, position: Position, path: Path) -> None:
    """Write the trained weights by their names. Every process must call it."""
    weights = {}
    for name, weight in full_tensors(draft):
        # Copied, because a gathered tensor is valid until the next iteration only.
        if trainer.is_global_zero:
            weights[name] = weight.to("cpu", copy=True)
    if trainer.is_global_zero:
        record = {
            "step": position.best_step,
            "alpha": position.best_alpha,
            "nats": position.best_nats,
            "weights": weights,
        }
        write_state(record, path)
    trainer.strategy.barrier("best.ckpt")


def load_best(draft: nn.Module, path: Path) -> None:
    """Copy the weights of `best.ckpt` into an unsharded draft, which has its LoRA adapters.

    Raises:
        DistillSpecError: The checkpoint is damaged or belongs to another draft.
    """
    weights = read_state(path, ("weights",))["weights"]
    parameters = dict(draft.named_parameters())
    with restoring(path):
        missing = weights.keys() - parameters.keys()
    if missing:
        raise DistillSpecError(
            f"the checkpoint belongs to another draft: it has {min(map(repr, missing))}",
            where=str(path),
            fix="use the recipe and the draft that the run was started with",
        )
    with torch.no_grad(), restoring(path):
        for name, weight in weights.items():
            if weight.shape != parameters[name].shape:
                raise ValueError(name)
            parameters[name].copy_(weight)

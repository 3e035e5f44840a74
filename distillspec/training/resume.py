"""Checkpoints: what a killed run goes on from, and the best draft so far.

`last.ckpt` holds the draft, the optimizer's state, the position in the run (from which follow the
learning rate and every random stream) and in the data, and the responses that may be replayed.
`best.ckpt` holds the trained weights of the best probe. Neither holds the target. Both replace
their predecessor only when wholly written, and load with `weights_only=True`: a checkpoint runs no
code. `last.previous.ckpt` is the checkpoint before: a damaged `last.ckpt` falls back to it.
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
class Position:
    """How far a run is. seconds: by phase; training_seconds: as all processes agreed on them.

    best_alpha, best_nats: of the best step, by whichever the probe measures; nan and None else.
    """

    step: int = 0
    response_tokens: int = 0
    training_seconds: float = 0.0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    best_step: int | None = None
    best_alpha: float = math.nan
    best_nats: float | None = None


class _Best(NamedTuple):
    """Of the step whose weights `best.ckpt` holds."""

    step: int
    alpha: float
    nats: float | None


class HasPosition(Protocol):
    """A data module that can say where it is and go back there."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class HasReplayBuffer(Protocol):
    """A rollout that keeps responses of its process for later steps."""

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
    """Write `last.ckpt`. Every process must call it."""
    strategy = trainer.strategy
    kept: list[list[dict[str, Any]]] = [rollout.state_dict()]
    if trainer.world_size > 1:
        is_first = trainer.is_global_zero  # which alone writes them
        everyone: list[list[dict[str, Any]]] = [[]] * trainer.world_size
        torch.distributed.gather_object(kept[0], everyone if is_first else None, dst=0)
        kept = everyone
    state = {
        "state_dict": strategy.lightning_module_state_dict(),
        "optimizer_states": [strategy.optimizer_state(o) for o in strategy.optimizers],
        "position": dataclasses.asdict(position),
        "data": data.state_dict(),
        "rollout": kept,
    }
    if average is not None:
        state["average"] = average.state_dict()
    strategy.save_checkpoint(state, path)
    strategy.barrier("last.ckpt")


def settle_last(path: Path, world: World) -> None:
    """Rank 0 leaves the newest whole checkpoint at `path` before any process looks for it."""
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
    """Put data and rollout back to where `last.ckpt` was written; the position to go on from."""
    verify(path)
    state = read_state(path / POSITION if path.is_dir() else path, ("position", "data"))
    with restoring(path):
        data.load_state_dict(state["data"])
        rollout.load_state_dict(state.get("rollout", []), rank)
        position: Position = typed(Position, state["position"])
        if min(position.step, position.response_tokens, position.training_seconds) < 0:
            raise ValueError("a negative position")
    return position


def note_best(path: Path, position: Position) -> None:
    """Let `position` know of a best draft that was kept after `last.ckpt` was written."""
    if not path.exists():
        if position.best_step is not None:
            raise DistillSpecError(
                f"the weights of the best step, {position.best_step}, are gone",
                where=str(path),
                fix="put the file back; or delete last.ckpt beside it: the run then trains from "
                "its beginning",
            )
        return
    state = read_state(path, ("step", "alpha", "nats"))
    with restoring(path):
        kept: _Best = typed(_Best, {name: state[name] for name in _Best._fields})
    if position.best_step is None or kept.step > position.best_step:
        position.best_step = kept.step
        position.best_alpha, position.best_nats = kept.alpha, kept.nats


def load_tensors(
    trainer: Trainer, path: Path, average: ExponentialMovingAverage | None = None
) -> None:
    """Put draft, optimizer and average back to where they were; the strategy is set up already."""
    strategy = trainer.strategy
    state = strategy.load_checkpoint(path, weights_only=True)
    if not isinstance(strategy, LoadsItself):
        strategy.load_model_state_dict(state)
        strategy.load_optimizer_state_dict(state)
    if average is not None:
        average.load_state_dict(state["average"])


def save_best(trainer: Trainer, draft: nn.Module, position: Position, path: Path) -> None:
    """Write the trained weights by their names. Every process must call it."""
    weights = {}
    for name, whole in full_tensors(draft):
        if trainer.is_global_zero:
            weights[name] = whole.to("cpu", copy=True)
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
    """Give an unsharded draft the weights of `best.ckpt`; LoRA adapters must be in place."""
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

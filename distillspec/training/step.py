"""One optimizer step: complete the rows, score them, accumulate token-exactly, update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn

from distillspec.corpus.batches.data_module import TrainingRow
from distillspec.divergence.reduction import DivergenceSums
from distillspec.errors import DistillSpecError
from distillspec.models.surgery.trainable import train_mode
from distillspec.recipe.schema import Recipe
from distillspec.runtime.interrupts import StopRequest
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.sampling import check_finite
from distillspec.training.average import ExponentialMovingAverage
from distillspec.training.clock import TRAINING_PHASES, StageClock
from distillspec.training.emphasis import StepStatistics, TokenWeights
from distillspec.training.finite import all_finite
from distillspec.training.objective import Objective, token_weights
from distillspec.training.optimizer import learning_rate, share_done
from distillspec.training.replica import InferenceCopy
from distillspec.training.resume import Position
from distillspec.training.rollout import MicroBatch, Rollout
from distillspec.training.sides import CachedTopK
from distillspec.training.strategy import Update

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class _Seen(NamedTuple):
    """Of one micro-batch, after the first of two passes."""

    signal: CachedTopK
    emphasis: TokenWeights


class StepResult(NamedTuple):
    """Sums over all processes; seconds by phase on this one. Rates are formed from them."""

    loss: float  # weighted sum
    weight: float  # what that sum is over: tokens, or sequences
    alpha: float  # sum over tokens; nan without a target
    tokens: float
    learning_rate: float
    gradient_norm: float
    seconds: dict[str, float]
    alpha_is_bound: bool = False  # of a kept signal: the true one is at most that
    loss_is_in_nats: bool = True

    def mean_loss(self) -> float:
        return self.loss / self.weight

    def metrics(self) -> dict[str, float]:
        """The row of metrics.csv: loss per token (or sequence), tokens per second."""
        loss = "train/divergence_nats" if self.loss_is_in_nats else "train/divergence"
        busy = sum(self.seconds.values())
        alpha = "train/alpha_at_most" if self.alpha_is_bound else "train/alpha"
        return {
            loss: self.mean_loss(),
            alpha: self.alpha / self.tokens if self.tokens else math.nan,
            "train/response_tokens": self.tokens,
            "train/tokens_per_second": self.tokens / busy,
            "train/learning_rate": self.learning_rate,
            "train/gradient_norm": self.gradient_norm,
            **{f"train/{name}_seconds": spent for name, spent in self.seconds.items()},
        }


class Step:
    """What a step is. The module calls it, the milestones read `result` and move `position` on."""

    update: Update  # made once the strategy has wrapped the model
    result: StepResult

    def __init__(
        self,
        recipe: Recipe,
        objective: Objective,
        rollout: Rollout,
        replica: InferenceCopy,
        *,
        clock: StageClock,
        position: Position,
        autocast_dtype: torch.dtype,
        micro_batch_size: int,
        average: ExponentialMovingAverage | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        """stop: asked once a step, and answered by all processes alike."""
        self.recipe = recipe
        self.objective = objective
        self.rollout = rollout
        self.replica = replica
        self.clock = clock
        self.position = position
        self.autocast_dtype = autocast_dtype
        self.micro_batch_size = micro_batch_size
        self.average = average
        self.stop = stop or StopRequest()
        self.rate = 0.0
        self.stops = False  # this step is the last of this start

    def run(self, trainer: Trainer, draft: nn.Module, rows: Sequence[TrainingRow]) -> None:
        """Train on `rows`, this process's share of the step. Every process must call it.

        Errors: DistillSpecError when no row has a response, or when loss or gradient is not finite:
        nothing of such a step is saved.
        """
        position, clock = self.position, self.clock
        device, world = trainer.strategy.root_device, trainer.world_size
        before = dict(clock.seconds)
        # The dropout of LoRA, where it has one, is the only user of torch's own generator.
        torch.manual_seed(derive_seed(self.recipe.seed, "dropout", *self._place(trainer)))
        with clock.phase("rollout"):
            batches = self._micro_batches(trainer, draft, rows)
        # How many tokens the whole step has is known before its first backward: each weighs the
        # same, whichever micro-batch and process it is in.
        emphases = self._emphases(trainer, draft, batches)
        with clock.phase("update"):
            mine = 0.0
            for (_, batch), seen in zip(batches, emphases, strict=True):
                weights = token_weights(batch, self.recipe.distill.reduction)
                kept = weights if seen is None else seen.emphasis.kept(weights)
                mine += float(kept.sum())
            (weight,) = _summed(trainer, mine)
        if not weight:
            raise DistillSpecError(
                "no row of this step has a response",
                where=f"step {position.step + 1}",
                fix="look at the data with data.preview: responses are empty",
            )
        rate = self.rate = self._set_learning_rate(trainer)
        totals = torch.zeros(3, dtype=torch.float64, device=device)
        for number, (micro, seen) in enumerate(zip(batches, emphases, strict=True), start=1):
            batch = micro.batch
            with clock.phase("target"):
                signal = seen.signal if seen else self._signal(draft, micro)
            emphasis = seen.emphasis if seen else None
            with clock.phase("update"), self.update.accumulating(last=number == len(batches)):
                assert trainer.strategy.model is not None
                sums: DivergenceSums = trainer.strategy.model(batch, signal, emphasis)
                self.update.backward(sums.divergence * (world / weight))
                totals += torch.stack([value.detach().double() for value in sums])
        with clock.phase("update"):
            divergence, alpha, tokens, elapsed, asked_to_stop = _summed(
                trainer, *totals.tolist(), clock.training_seconds, float(self.stop.is_made)
            )
            self.stops = bool(asked_to_stop)
            if not math.isfinite(divergence):
                self._check_target(batches)
            self._check_finite("loss", divergence)
            norm = self.update.apply()
            self._check_finite("gradient", norm)
            (spoilt,) = _summed(trainer, 0.0 if all_finite(draft) else 1.0)
            self._check_finite("largest updated weight", math.nan if spoilt else 0.0)
            if self.average is not None:
                self.average.update()
        seconds = {name: clock.seconds[name] - before[name] for name in TRAINING_PHASES}
        self.result = StepResult(
            divergence,
            weight,
            alpha,
            tokens,
            rate,
            norm,
            seconds,
            alpha_is_bound=self.objective.cached is not None,
            loss_is_in_nats=self.recipe.distill.loss_unit == "nats",
        )
        position.step += 1
        position.training_seconds = elapsed / world
        position.response_tokens += int(tokens)

    def _emphases(
        self, trainer: Trainer, draft: nn.Module, batches: Sequence[MicroBatch]
    ) -> list[_Seen] | list[None]:
        """The first of two passes over the step, where the objective needs one."""
        if not self.recipe.distill.reads_whole_steps:
            return [None] * len(batches)
        signals, observed = [], []
        for micro in batches:
            with self.clock.phase("target"):
                signals.append(self._signal(draft, micro))
            with self.clock.phase("update"), self.autocast(micro.batch.tokens.device):
                observed.append(self.objective.observe(draft, micro.batch, signals[-1]))
        step = _gathered(trainer, observed)
        return [
            _Seen(signal, one.emphasis(step, self.recipe.distill))
            for signal, one in zip(signals, observed, strict=True)
        ]

    def _signal(self, draft: nn.Module, micro: MicroBatch) -> CachedTopK:
        """What the target says of the rows; of those that may come again it is kept."""
        signal = self.objective.target_signal(draft, micro.batch)
        self.rollout.learn(micro, signal.hidden)
        return signal

    def _micro_batches(
        self, trainer: Trainer, draft: nn.Module, rows: Sequence[TrainingRow]
    ) -> list[MicroBatch]:
        """The rows with their responses, written now with the current weights where asked for."""
        device = trainer.strategy.root_device
        if self.rollout.writes:
            model = self.replica.refresh(device)
            generator = torch.Generator(device).manual_seed(
                derive_seed(self.recipe.seed, "rollout", *self._place(trainer))
            )
            completed = self.rollout.completed(model, rows, self.position.step, generator)
        else:
            completed = self.rollout.stored(rows)
        train_mode(draft)
        return self.rollout.micro_batches(completed, self.micro_batch_size, device)

    def _set_learning_rate(self, trainer: Trainer) -> float:
        position, plan = self.position, self.recipe.optimizer
        done = share_done(position.step, position.training_seconds, self.recipe.distill)
        rate = learning_rate(position.step, done, plan)
        for optimizer in trainer.strategy.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate_share"]
        return rate

    def autocast(self, device: torch.device) -> torch.autocast:
        """What the draft's forward runs in."""
        enabled = self.autocast_dtype != torch.float32
        return torch.autocast(device.type, self.autocast_dtype, enabled=enabled)

    def _place(self, trainer: Trainer) -> tuple[int, int]:
        """Where a stream of random numbers stands: a resumed run repeats it."""
        return self.position.step, trainer.global_rank

    def _check_target(self, batches: Sequence[MicroBatch]) -> None:
        """DistillSpecError where it is the target's logits that are not finite."""
        target = self.objective.target
        for _, batch in batches if target is not None else ():
            assert target is not None
            said = target.logits(batch.tokens, batch.is_token)[batch.is_token]
            check_finite("the target", said.float().amax(-1))

    def _check_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        raise DistillSpecError(
            f"the {what} is {value}: training stopped before this step was saved",
            where=f"step {self.position.step + 1}, at a learning rate of {self.rate:g}; the "
            "checkpoints of earlier steps are as they were",
            fix="lower optimizer.learning_rate, raise optimizer.warmup_steps, or try "
            "hardware.precision=float32, and start a new run",
        )


def _gathered(trainer: Trainer, mine: list[StepStatistics]) -> list[StepStatistics]:
    """Those of all processes, on this one's device."""
    if trainer.world_size == 1:
        return mine
    everyone: list[list[StepStatistics]] = [[]] * trainer.world_size
    torch.distributed.all_gather_object(everyone, [one.to("cpu") for one in mine])
    device = trainer.strategy.root_device
    return [one.to(device) for theirs in everyone for one in theirs]


def _summed(trainer: Trainer, *values: float) -> list[float]:
    """Each value, summed over all processes (double precision)."""
    device = trainer.strategy.root_device
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    total = trainer.strategy.reduce(mine, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total.tolist()

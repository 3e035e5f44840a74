"""One optimizer step: complete the rows, score them, accumulate token-exactly, update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn

from distillspec.corpus.batches.data_module import TrainingRow
from distillspec.errors import DistillSpecError
from distillspec.models.surgery.trainable import train_mode
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.schema import Recipe
from distillspec.runtime.interrupts import StopRequest
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.sampling import check_finite
from distillspec.training.clock import TRAINING_PHASES, StageClock
from distillspec.training.finite import all_finite
from distillspec.training.inference_copy import InferenceCopy
from distillspec.training.loss_inputs import TargetOutputs
from distillspec.training.loss_positions import token_weights
from distillspec.training.objective import Objective
from distillspec.training.optimizer import learning_rate, share_done
from distillspec.training.process_plan import ProcessPlan
from distillspec.training.resume import Position
from distillspec.training.rollout import MicroBatch, Rollout
from distillspec.training.running_average import ExponentialMovingAverage
from distillspec.training.step_result import StepResult
from distillspec.training.strategy import Update
from distillspec.training.token_weights import StepStatistics, TokenWeights

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


_ROUNDING = 1e-9  # of the sums of shares


class _FirstPass(NamedTuple):
    """The first of two passes over one micro-batch: the target's outputs and the token weights."""

    outputs: TargetOutputs
    weights: TokenWeights


class Step:
    """One training step. The module calls `run`; the training callback reads `result` after it.

    Attributes:
        update: How weights change; set when the strategy has wrapped the model.
        result: Of the last step.
        position: Progress of the run, which `run` updates.
        stops: Whether a stop request made this step the last of this start.
    """

    update: Update
    result: StepResult

    def __init__(
        self,
        recipe: Recipe,
        objectives: Sequence[Objective],
        rollout: Rollout,
        inference_copy: InferenceCopy,
        *,
        processes: ProcessPlan,
        position: Position,
        average: ExponentialMovingAverage | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        """Build the step that continues after `position`.

        Args:
            recipe: How to train.
            objectives: The losses, and the target's forward, of each phase of the schedule.
            rollout: Writes responses.
            inference_copy: The draft that the rollout decodes with.
            processes: Device, precision and batch sizes.
            position: Progress of the run; `run` updates it.
            average: Moving average of the weights, if the recipe has one.
            stop: Read once a step. All processes stop after the same step.
        """
        self.recipe = recipe
        self.rollout = rollout
        self._objectives = objectives
        self._ends = list(accumulate(recipe.distill.phase_shares))
        self.inference_copy = inference_copy
        self.clock = StageClock(torch.device(processes.accelerator))
        self.clock.seconds.update(position.seconds)
        self.position = position
        self.autocast_dtype = processes.dtype
        self.micro_batch_size = processes.micro_batch_size
        self.average = average
        self.stop = stop or StopRequest()
        self.rate = 0.0
        self.stops = False
        self.rollout.distill = self.plan

    @property
    def objective(self) -> Objective:
        """The losses of the current phase."""
        return self._objectives[self.position.phase]

    @property
    def plan(self) -> DistillConfig:
        """The settings of the current phase."""
        return self.objective.distill

    def end_phases(self) -> list[str]:
        """End the phases that are over; the next step then belongs to the first that is not.

        Call it after each step and its probe, and after the probe before training.

        Returns:
            A note for each phase that a probe has ended.
        """
        position, schedule, notes = self.position, self.recipe.distill.schedule, list[str]()
        done = share_done(position.step, position.training_seconds, self.recipe.distill)
        # The last phase ends with the run. A good draft may skip several at its first probe.
        while done < 1.0 and position.phase + 1 < len(schedule):
            phase, reason = schedule[position.phase], ""
            if phase.until_alpha is not None and position.probed_alpha >= phase.until_alpha:
                reason = f"alpha has reached {phase.until_alpha:g}"
            elif phase.patience is not None and position.probes_without_gain >= phase.patience:
                reason = f"{phase.patience} probes without a better draft"
            elif done < self._ends[position.phase] - _ROUNDING:
                break
            position.phase += 1
            position.probes_without_gain = 0
            self.rollout.distill = self.plan
            if reason:
                notes.append(f"{reason}; next: {self.plan.loss_in_words}")
        return notes

    def run(self, trainer: Trainer, draft: nn.Module, rows: Sequence[TrainingRow]) -> None:
        """Train on `rows`, this process's share of the step. Every process must call it.

        Raises:
            DistillSpecError: No row has a response, or loss, gradient or a weight is not finite.
                Nothing of such a step is saved.
        """
        before = dict(self.clock.seconds)
        # Only LoRA's dropout uses torch's global generator.
        torch.manual_seed(derive_seed(self.recipe.seed, "dropout", *self._stream(trainer)))
        # 1. Complete the rows: stored responses, or new ones from the draft or the target.
        with self.clock.phase("rollout"):
            batches = self._micro_batches(trainer, draft, rows)
        # 2. Objectives that weigh a token by the entire step need a first pass over it.
        passes = self._first_pass(trainer, draft, batches)
        # 3. The weight of the entire step is known before its first backward. So a token weighs
        #    the same in every micro-batch and process.
        with self.clock.phase("update"):
            weight = self._total_weight(trainer, batches, passes)
        self.rate = self._set_learning_rate(trainer)
        # 4. Both forwards, the loss and its backward, micro-batch by micro-batch.
        totals = self._accumulate(trainer, draft, batches, passes, weight)
        # 5. One update, refused if anything is not finite.
        with self.clock.phase("update"):
            divergence, alpha, tokens, seconds, norm = self._apply(trainer, draft, batches, totals)
        self.result = StepResult(
            divergence,
            weight,
            alpha,
            tokens,
            self.rate,
            norm,
            {name: self.clock.seconds[name] - before[name] for name in TRAINING_PHASES},
            alpha_is_bound=self.objective.cached is not None
            and all(micro.is_stored for micro in batches),
            loss_unit=self.plan.loss_unit,
        )
        self.position.step += 1
        self.position.training_seconds = seconds
        self.position.response_tokens += int(tokens)

    def _first_pass(
        self, trainer: Trainer, draft: nn.Module, batches: Sequence[MicroBatch]
    ) -> list[_FirstPass] | list[None]:
        """Statistics of the entire step, of all processes; None for objectives without them."""
        if not self.plan.reads_whole_steps:
            return [None] * len(batches)
        outputs, observed = [], []
        for micro in batches:
            with self.clock.phase("target"):
                outputs.append(self._target_outputs(draft, micro))
            with self.clock.phase("update"), self.autocast(micro.batch.tokens.device):
                observed.append(self.objective.observe(draft, micro.batch, outputs[-1]))
        step = _gathered(trainer, observed)
        return [
            _FirstPass(target, statistics.weights(step, self.plan))
            for target, statistics in zip(outputs, observed, strict=True)
        ]

    def _total_weight(
        self,
        trainer: Trainer,
        batches: Sequence[MicroBatch],
        passes: Sequence[_FirstPass | None],
    ) -> float:
        """What the loss of the step is divided by: tokens or sequences of all processes."""
        total = torch.zeros((), dtype=torch.float64, device=trainer.strategy.root_device)
        for micro, first in zip(batches, passes, strict=True):
            weights = token_weights(micro.batch, self.recipe.distill.reduction)
            counted = weights if first is None else first.weights.kept(weights)
            total += counted.sum()
        (weight,) = _summed(trainer, total.unsqueeze(0))
        if not weight:
            raise DistillSpecError(
                "no row of this step has a response",
                where=f"step {self.position.step + 1}",
                fix="check the responses of the data set, for example with data.preview",
            )
        return weight

    def _accumulate(
        self,
        trainer: Trainer,
        draft: nn.Module,
        batches: Sequence[MicroBatch],
        passes: Sequence[_FirstPass | None],
        weight: float,
    ) -> Tensor:
        """Run forward and backward of each micro-batch.

        Returns:
            Sums of this process, double [3]: divergence, alpha, tokens.
        """
        totals = torch.zeros(3, dtype=torch.float64, device=trainer.strategy.root_device)
        for number, (micro, first) in enumerate(zip(batches, passes, strict=True), start=1):
            with self.clock.phase("target"):
                outputs = first.outputs if first else self._target_outputs(draft, micro)
            weights = first.weights if first else None
            is_last = number == len(batches)
            with self.clock.phase("update"), self.update.accumulating(last=is_last):
                sums = self.update.loss(micro.batch, outputs, weights)
                # Strategies average over processes; `world_size` turns the mean into a sum.
                self.update.backward(sums.divergence * (trainer.world_size / weight))
                totals += torch.stack([value.detach().double() for value in sums])
        return totals

    def _apply(
        self,
        trainer: Trainer,
        draft: nn.Module,
        batches: Sequence[MicroBatch],
        totals: Tensor,
    ) -> tuple[float, float, float, float, float]:
        """Update the weights.

        Returns:
            Divergence, alpha and tokens of all processes, the mean training time (s) and the
            gradient norm.
        """
        local = totals.new_tensor([self.clock.training_seconds, float(self.stop.is_made)])
        divergence, alpha, tokens, seconds, stop_requests = _summed(
            trainer, torch.cat([totals, local])
        )
        self.stops = bool(stop_requests)
        if not math.isfinite(divergence):
            self._check_target(batches)
        self._check_finite("loss", divergence)
        norm = self.update.apply()
        self._check_finite("gradient", norm)
        is_damaged = totals.new_tensor([0.0 if all_finite(draft) else 1.0])
        (damaged,) = _summed(trainer, is_damaged)
        self._check_finite("largest updated weight", math.nan if damaged else 0.0)
        if self.average is not None:
            self.average.update()
        return divergence, alpha, tokens, seconds / trainer.world_size, norm

    def _target_outputs(self, draft: nn.Module, micro: MicroBatch) -> TargetOutputs:
        """Run the target's forward, and store its hidden states with rows that may be replayed."""
        outputs = self.objective.target_outputs(draft, micro.batch, is_stored=micro.is_stored)
        self.rollout.learn(micro, outputs.hidden)
        return outputs

    def _micro_batches(
        self, trainer: Trainer, draft: nn.Module, rows: Sequence[TrainingRow]
    ) -> list[MicroBatch]:
        """Complete the rows with the current weights, and form micro-batches."""
        device = trainer.strategy.root_device
        if self.rollout.writes:
            model = self.inference_copy.refresh(device)
            generator = torch.Generator(device).manual_seed(
                derive_seed(self.recipe.seed, "rollout", *self._stream(trainer))
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
        """The autocast context of the draft's forward."""
        enabled = self.autocast_dtype != torch.float32
        return torch.autocast(device.type, self.autocast_dtype, enabled=enabled)

    def _stream(self, trainer: Trainer) -> tuple[int, int]:
        """Step and process, which identify a stream of random numbers in a resumed run too."""
        return self.position.step, trainer.global_rank

    def _check_target(self, batches: Sequence[MicroBatch]) -> None:
        """Raise DistillSpecError if the target's logits are not finite."""
        target = self.objective.target
        for _, batch, _ in batches if target is not None else ():
            assert target is not None
            logits = target.logits(batch.tokens, batch.is_token)[batch.is_token]
            check_finite("the target", logits.float().amax(-1))

    def _check_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        raise DistillSpecError(
            f"the {what} is {value}: training stopped before this step was saved",
            where=f"step {self.position.step + 1}, at a learning rate of {self.rate:g}; the "
            "checkpoints of earlier steps are unchanged",
            fix="lower optimizer.learning_rate, raise optimizer.warmup_steps, or try "
            "hardware.precision=float32, and start a new run",
        )


def _gathered(trainer: Trainer, local: list[StepStatistics]) -> list[StepStatistics]:
    """The statistics of all processes, on the device of this process."""
    if trainer.world_size == 1:
        return local
    gathered: list[list[StepStatistics]] = [[]] * trainer.world_size
    torch.distributed.all_gather_object(gathered, [statistics.to("cpu") for statistics in local])
    device = trainer.strategy.root_device
    return [statistics.to(device) for of_process in gathered for statistics in of_process]


def _summed(trainer: Trainer, values: Tensor) -> list[float]:
    """Sum each of the values, double [n] on the device, over all processes."""
    total = trainer.strategy.reduce(values, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total.tolist()

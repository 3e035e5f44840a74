"""What a run does after each step, and when: probe, save the best, log, checkpoint, stop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightning.pytorch import Callback, LightningModule
from torch import nn

from distillspec.errors import DistillSpecError
from distillspec.models.surgery.trainable import train_mode
from distillspec.recipe.distill import DistillConfig, ProbeConfig
from distillspec.runtime.lock import check_still_there
from distillspec.training.optimizer import share_done
from distillspec.training.progress import Reporter, StepReport
from distillspec.training.resume import (
    BEST,
    LAST,
    Comparable,
    HasPosition,
    Position,
    load_tensors,
    save_best,
    save_last,
)
from distillspec.training.step import Step

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


class BestMeasure(Comparable, Protocol):
    """The result of a probe. Rank 0 sends it to all processes."""

    @property
    def is_a_number(self) -> bool:
        """False if a distribution was not finite."""
        ...

    def metrics(self) -> dict[str, float]:
        """The result's columns of metrics.csv."""

    def words(self) -> str:
        """The result as a text for a progress line."""
        ...


class ProbeMeasure(Protocol):
    """Measures a draft in eval mode, each time on the same held-out text.

    Attributes:
        joint: Whether every process must measure, with equal results; else only rank 0 measures.
    """

    joint: bool

    def measure(self, draft: PreTrainedModel) -> BestMeasure: ...


class TrainingCallback(Callback):
    """Probes, saves the best draft, logs, saves a checkpoint and stops, in this order.

    With this order a row of metrics.csv is complete when it is written, and no checkpoint is ahead
    of its rows. The probe decides which step is the best; without a probe it is the last step.
    """

    def __init__(
        self,
        step: Step,
        draft: nn.Module,
        data: HasPosition,
        probe: ProbeMeasure | None,
        reporter: Reporter,
        *,
        folder: Path,
        label: str,
        on_checkpoint: Callable[[int], None] | None = None,
    ) -> None:
        """Watch a run from its current position.

        Args:
            step: What the module runs. The callback reads its result and saves its position.
            draft: The model that is trained.
            data: Saved with each checkpoint.
            probe: None for runs without measurements.
            reporter: Shows progress.
            folder: Run folder.
            label: Name of the draft in progress lines.
            on_checkpoint: Called at each checkpoint with the response tokens since this start.
        """
        self._step = step
        self._draft = draft
        self._data = data
        self._probe = probe
        self._reporter = reporter
        self._folder = folder
        self._label = label
        self._on_checkpoint = on_checkpoint
        self._tokens_before = step.position.response_tokens
        self._plan = step.recipe.distill
        self._saved_at = step.position.training_seconds
        self._signals = ExitStack()
        self.interrupt: KeyboardInterrupt | None = None  # Lightning turns it into an exit

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # These handlers replace Lightning's. On SIGTERM those would broadcast to the other
        # processes in the middle of a step's own communication.
        self._signals.enter_context(self._step.stop.watching())
        self._reporter.start(self._label)
        if trainer.is_global_zero:
            self._check_folder(trainer)
        if self._step.average is not None:
            self._step.average.to(trainer.strategy.root_device)
        # Only now is the strategy set up, so that weights and optimizer can be restored.
        if self._step.position.step > 0:
            load_tensors(trainer, self._folder / LAST, self._step.average)
            log.info("%s: resuming after step %d", self._label, self._step.position.step)
        # The draft before training is measured too: it may stay the best.
        elif self._probe is not None:
            _log(trainer, self._probed(trainer), 0)
            self._end_phases()
            self._explain_phase()
        # Until here a signal ends the run at once; from here on it waits for a step.
        self._step.stop.wait_for_steps()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        position, plan = self._step.position, self._plan
        ends = is_over(position, plan)
        if trainer.is_global_zero:
            self._check_folder(trainer)
        metrics = self._step.result.metrics()
        metrics["train/training_seconds"] = position.training_seconds
        self._report(metrics)
        # 1. Probe, and save the draft if it is the best so far.
        if self._probe is not None and (ends or _is_probed(position.step, plan.probe)):
            metrics |= self._probed(trainer)
        elif self._probe is None and ends:
            with self._averaged():
                self._save_best(trainer)
        self._end_phases()
        # 2. Log, then save: a checkpoint is never ahead of metrics.csv.
        _log(trainer, metrics, position.step)
        stops = ends or self._step.stops
        if stops or self._is_due(position):
            self._saved_at = position.training_seconds
            with self._step.clock.phase("checkpoint"):
                position.seconds = dict(self._step.clock.seconds)
                save_last(
                    trainer,
                    self._data,
                    self._step.rollout,
                    position,
                    self._folder / LAST,
                    self._step.average,
                )
            if self._on_checkpoint is not None:
                self._on_checkpoint(position.response_tokens - self._tokens_before)
        # 3. A stop comes last, when the checkpoint is complete.
        trainer.should_stop = stops
        if self._step.stops and not ends:
            self.interrupt = self._step.stop.interrupt()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._signals.close()
        self._reporter.stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._signals.close()
        self._reporter.stop()
        if isinstance(exception, KeyboardInterrupt):
            self.interrupt = exception

    def _check_folder(self, trainer: Trainer) -> None:
        try:
            check_still_there(self._folder)
        except DistillSpecError:
            trainer.loggers = []  # closing them would write into the missing folder
            raise

    def _end_phases(self) -> None:
        for note in self._step.end_phases():
            self._reporter.note(f"step {self._step.position.step}: {note}")

    def _explain_phase(self) -> None:
        """Say why the training begins with the first phase, where alpha decides that."""
        step, schedule = self._step, self._plan.schedule
        wanted = schedule[0].until_alpha if schedule else None
        if wanted is not None and not step.position.phase:
            self._reporter.note(
                f"step 0: alpha is below {wanted:g}; first {step.plan.loss_in_words}"
            )

    def _is_due(self, position: Position) -> bool:
        """Whether this step is saved: every n steps, or when a killed run would lose n minutes."""
        seconds = position.training_seconds - self._saved_at
        return (
            position.step % self._plan.checkpoint_every_steps == 0
            or seconds >= 60.0 * self._plan.checkpoint_every_minutes
        )

    def _averaged(self) -> AbstractContextManager[None]:
        """While this is open, the draft has the weights that would be exported."""
        average = self._step.average
        return nullcontext() if average is None else average.placed()

    def _probed(self, trainer: Trainer) -> dict[str, float]:
        """Measure the draft, and save it if no earlier draft was better."""
        with self._averaged():
            return self._measured(trainer)

    def _measured(self, trainer: Trainer) -> dict[str, float]:
        assert self._probe is not None
        clock, position = self._step.clock, self._step.position
        before = clock.seconds["probe"]
        with clock.phase("probe"):
            # Every process refreshes the copy: sharded weights are gathered from all of them.
            model = self._step.inference_copy.refresh(trainer.strategy.root_device)
            measures = trainer.is_global_zero or self._probe.joint
            result = self._probe.measure(model) if measures else None
            # The copy may be the draft itself, which `refresh` has put into eval mode.
            train_mode(self._draft)
            result = trainer.strategy.broadcast(result)
        assert result is not None
        if not result.is_a_number:
            raise DistillSpecError(
                f"the draft's distributions are not finite: {result.words()}",
                where=f"probe after step {position.step}; the checkpoints of earlier steps are "
                "unchanged",
                fix="lower optimizer.learning_rate, or try hardware.precision=float32, and start "
                "a new run; at step 0 the weights of target or draft are damaged",
            )
        self._reporter.note(f"step {position.step}: {result.words()}")
        if result.beats(position):
            result.keep(position)
            self._save_best(trainer)
        position.note_probe(result)
        return {**result.metrics(), "probe/seconds": clock.seconds["probe"] - before}

    def _save_best(self, trainer: Trainer) -> None:
        position = self._step.position
        position.best_step = position.step
        with self._step.clock.phase("checkpoint"):
            save_best(trainer, self._draft, position, self._folder / BEST)

    def _report(self, metrics: dict[str, float]) -> None:
        position, plan = self._step.position, self._plan
        bound = metrics.get("train/alpha_at_most")
        self._reporter.step(
            StepReport(
                step=position.step,
                max_steps=plan.max_steps,
                loss=self._step.result.mean_loss(),
                loss_unit=self._step.result.loss_unit,
                alpha=metrics["train/alpha"] if bound is None else bound,
                tokens_per_second=metrics["train/tokens_per_second"],
                done=share_done(position.step, position.training_seconds, plan),
                seconds=self._step.clock.seconds,
                alpha_is_bound=bound is not None,
            )
        )


def _is_probed(step: int, plan: ProbeConfig) -> bool:
    """Every n steps, and twice before the first n: an early best step must not be missed."""
    every = plan.every_steps
    return step % every == 0 or step in (every // 4, every // 2)


def is_over(position: Position, plan: DistillConfig) -> bool:
    """Whether the run has done all steps of the plan, or used all of its training time."""
    return share_done(position.step, position.training_seconds, plan) >= 1.0


def _log(trainer: Trainer, metrics: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step)

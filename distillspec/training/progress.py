"""Progress of a training run, on rank 0: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple, Protocol

from rich.progress import BarColumn, Progress, TextColumn

from distillspec.runtime.terminal import LINE_SECONDS, Terminal
from distillspec.text.numbers import clock
from distillspec.training.clock import TRAINING_PHASES

log = logging.getLogger(__name__)


class StepReport(NamedTuple):
    """The numbers of one step.

    Attributes:
        step: Steps done.
        max_steps: Steps of the run.
        loss: Per token, or per sequence.
        alpha: Acceptance rate; NaN without a target.
        tokens_per_second: Response tokens per second of training.
        done: Share of the run that is done, in [0, 1].
        seconds: Of the run so far, by phase.
        alpha_is_bound: Whether `alpha` is only an upper bound.
        loss_unit: Empty for a dimensionless loss.
    """

    step: int
    max_steps: int
    loss: float
    alpha: float
    tokens_per_second: float
    done: float
    seconds: dict[str, float]
    alpha_is_bound: bool = False
    loss_unit: str = "nats"

    def eta_seconds(self) -> float | None:
        """Remaining training time at the mean speed so far; None before the first step."""
        spent = sum(self.seconds[name] for name in TRAINING_PHASES)
        return spent * (1.0 - self.done) / self.done if self.done else None

    def _step_text(self) -> str:
        """The step, with the number of steps unless only `max_minutes` ends the run."""
        return f"{self.step}/{self.max_steps}" if self.max_steps < 10**6 else str(self.step)

    def text(self) -> str:
        """The step as a line of numbers with their units."""
        spent = sum(self.seconds[name] for name in TRAINING_PHASES) or 1.0
        shares = ", ".join(f"{name} {self.seconds[name] / spent:.0%}" for name in TRAINING_PHASES)
        bound = "<= " if self.alpha_is_bound else ""
        alpha = "" if self.alpha != self.alpha else f"  alpha {bound}{self.alpha:.3f}"
        unit = f" {self.loss_unit}" if self.loss_unit else ""
        return (
            f"step {self._step_text()}  loss {self.loss:.4f}{unit}{alpha}  "
            f"{self.tokens_per_second:,.0f} tokens/s  ({shares})  ETA {clock(self.eta_seconds())}"
        )


class Reporter(Protocol):
    """Shows the progress of a run."""

    def start(self, label: str) -> None: ...

    def step(self, report: StepReport) -> None: ...

    def note(self, text: str) -> None:
        """Print a line that stays, such as the result of a probe."""

    def stop(self) -> None: ...


class ProgressLines:
    """Log lines: the first step, then a line every LINE_SECONDS, then the last step."""

    def __init__(self) -> None:
        self._label = ""
        self._last = float("-inf")
        self._pending: StepReport | None = None

    def start(self, label: str) -> None:
        self._label = label

    def step(self, report: StepReport) -> None:
        now = time.monotonic()
        # A report that gets no line now gets one in `stop`, if it is the last.
        self._pending = report
        if now - self._last >= LINE_SECONDS:
            self._last = now
            self._flush()

    def note(self, text: str) -> None:
        log.info("%s: %s", self._label, text)

    def stop(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._pending is not None:
            log.info("%s: %s", self._label, self._pending.text())
            self._pending = None


class ProgressBar:
    """A bar of `rich` that redraws its line."""

    def __init__(self, console: Terminal) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
        )

    def start(self, label: str) -> None:
        self._task = self._bar.add_task(label, total=1.0, text="")
        self._bar.start()

    def step(self, report: StepReport) -> None:
        self._bar.update(self._task, completed=report.done, text=report.text())

    def note(self, text: str) -> None:
        self._bar.console.print(text)

    def stop(self) -> None:
        self._bar.stop()


class NoProgress:
    """For processes other than rank 0."""

    def start(self, label: str) -> None: ...

    def step(self, report: StepReport) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


def make_reporter(rank: int) -> Reporter:
    """A bar on a terminal, log lines elsewhere, nothing on ranks other than 0."""
    if rank:
        return NoProgress()
    console = Terminal(stderr=True)
    return ProgressBar(console) if console.is_terminal else ProgressLines()

"""What one sees while it trains: a bar on a terminal, plain log lines elsewhere; rank 0 only."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple, Protocol

from rich.progress import BarColumn, Progress, TextColumn

from distillspec.runtime.terminal import LINE_SECONDS, Terminal
from distillspec.text.numbers import clock
from distillspec.training.clock import TRAINING_PHASES

log = logging.getLogger(__name__)


class Report(NamedTuple):
    """One step. done: share of the run, in [0, 1]. seconds: of the run, by phase.

    alpha_is_bound: alpha is at most that. loss_unit: empty for none.
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
        """Training time still to go, if the rest goes like the part behind us."""
        spent = sum(self.seconds[name] for name in TRAINING_PHASES)
        return spent * (1.0 - self.done) / self.done if self.done else None

    def _place(self) -> str:
        """A run that is bounded by time alone has no number of steps to go to."""
        return f"{self.step}/{self.max_steps}" if self.max_steps < 10**6 else str(self.step)

    def text(self) -> str:
        """The step in one line of numbers with their units."""
        spent = sum(self.seconds[name] for name in TRAINING_PHASES) or 1.0
        shares = ", ".join(f"{name} {self.seconds[name] / spent:.0%}" for name in TRAINING_PHASES)
        bound = "<= " if self.alpha_is_bound else ""
        alpha = "" if self.alpha != self.alpha else f"  alpha {bound}{self.alpha:.3f}"
        unit = f" {self.loss_unit}" if self.loss_unit else ""
        return (
            f"step {self._place()}  loss {self.loss:.4f}{unit}{alpha}  "
            f"{self.tokens_per_second:,.0f} tokens/s  ({shares})  ETA {clock(self.eta_seconds())}"
        )


class Reporter(Protocol):
    def start(self, label: str) -> None: ...

    def step(self, report: Report) -> None: ...

    def note(self, text: str) -> None:
        """A line that stays: a probe's result."""

    def stop(self) -> None: ...


class ProgressLines:
    """Log lines: the first step, then one every ten seconds, then the last."""

    def __init__(self) -> None:
        self._label = ""
        self._last = float("-inf")
        self._unsaid: Report | None = None

    def start(self, label: str) -> None:
        self._label = label

    def step(self, report: Report) -> None:
        now = time.monotonic()
        self._unsaid = report
        if now - self._last >= LINE_SECONDS:
            self._last = now
            self._say()

    def note(self, text: str) -> None:
        log.info("%s: %s", self._label, text)

    def stop(self) -> None:
        self._say()

    def _say(self) -> None:
        if self._unsaid is not None:
            log.info("%s: %s", self._label, self._unsaid.text())
            self._unsaid = None


class ProgressBar:
    """A rich bar that is drawn over itself."""

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

    def step(self, report: Report) -> None:
        self._bar.update(self._task, completed=report.done, text=report.text())

    def note(self, text: str) -> None:
        self._bar.console.print(text)

    def stop(self) -> None:
        self._bar.stop()


class NoProgress:
    """For processes other than rank 0."""

    def start(self, label: str) -> None: ...

    def step(self, report: Report) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


def make_reporter(rank: int) -> Reporter:
    """The bar on a terminal, lines elsewhere, nothing on ranks other than 0."""
    if rank:
        return NoProgress()
    console = Terminal(stderr=True)
    return ProgressBar(console) if console.is_terminal else ProgressLines()

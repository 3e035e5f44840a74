"""The one kind of console that this package prints with: foreign text stays text."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from distillspec.text.foreign import visible
from distillspec.text.numbers import clock

LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


class Terminal(Console):
    """A rich console without markup, whose texts cannot hold control characters.

    A style is given by `style=` or as a rich `Text`: `[red]` within a text is five characters.
    """

    def __init__(
        self,
        *,
        file: IO[str] | None = None,
        stderr: bool = False,
        width: int | None = None,
        soft_wrap: bool = False,
        force_terminal: bool | None = None,
    ) -> None:
        super().__init__(
            file=file,
            stderr=stderr,
            width=width,
            soft_wrap=soft_wrap,
            force_terminal=force_terminal,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def render_str(self, text: str, **options: Any) -> Text:
        """Before it is measured, so that the cells of a table stay aligned."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What did not come as a `str`: the console's own cursor codes are `control` segments."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

    def status(self, status: RenderableType, **options: Any) -> Progress:
        """Progress of something long: a spinner on a terminal, in a log a line now and then."""
        return Progress(_as_text(status), console=self, **options)


class Progress(Status):
    """What goes on, how much of it is done, and how long the rest will take; rank 0 alone.

    A log has no spinner. It gets a line every ten seconds, also while nothing is reported: the
    compilation of a graph alone takes longer.
    """

    def __init__(self, status: RenderableType, *, console: Console, **options: Any) -> None:
        super().__init__(status, console=console, **options)
        self._log = console
        self._is_silent = os.environ.get("RANK", "0") != "0"
        self._is_log = not console.is_terminal
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_broken = False  # nobody reads the output any more
        self._doing = str(status)
        self._done: int | None = None
        self._total: int | None = None
        self._note = ""
        self._begin()

    def _begin(self) -> None:
        self._began_at = self._printed_at = time.monotonic()
        self._done_before = self._done

    def start(self) -> None:
        """Show the spinner, or start the lines."""
        if self._is_silent:
            return
        if not self._is_log:
            super().start()
            return
        self._begin()
        self._thread = threading.Thread(target=self._print_lines, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the spinner or the lines."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None
            self._leave_if_broken()
        elif not self._is_log:
            super().stop()

    def __enter__(self) -> Progress:
        super().__enter__()
        return self

    def update(
        self,
        status: RenderableType | None = None,
        *,
        done: int | None = None,
        total: int | None = None,
        note: str = "",
        **options: Any,
    ) -> None:
        """Report progress.

        Args:
            status: What goes on, in words; None: what went on before.
            done: How much of it is done, in the units of `total`.
            total: How much there is.
            note: More about it, which may change without a new rate.
            options: Of `rich.status.Status.update`.
        """
        self._leave_if_broken()
        with self._lock:
            doing = self._doing if status is None else str(status)
            if doing != self._doing or (self._done_before is None and done is not None):
                # A rate is of one thing, and of what is done from its first report on.
                self._began_at, self._done_before = time.monotonic(), done
            self._doing, self._done, self._total, self._note = doing, done, total, note
            if self._is_log:
                self._print_if_due()
                return
            super().update(Text(visible(self.text())), **options)

    def text(self) -> str:
        """The progress in one line: what, how much, rate and remaining time where known."""
        return f"{self._measured()} ({self._note})" if self._note else self._measured()

    def _measured(self) -> str:
        seconds = time.monotonic() - self._began_at
        if self._done is None or self._total is None:
            return f"{self._doing}, {clock(seconds)}" if seconds >= 1.0 else self._doing
        counts = f"{self._doing}: {self._done:,} of {self._total:,}"
        # The rate is of what was done since the first report.
        newly = self._done - (self._done_before or 0)
        if newly <= 0 or seconds <= 0.0:
            return f"{counts}, {clock(seconds)}" if seconds >= 1.0 else counts
        rate = newly / seconds
        return f"{counts}, {_rate(rate)}, ETA {clock((self._total - self._done) / rate)}"

    def _print_lines(self) -> None:
        try:
            # At least 0.05 s, so that the loop never spins.
            while not self._ended.wait(
                max(self._printed_at + LINE_SECONDS - time.monotonic(), 0.05)
            ):
                with self._lock:
                    self._print_if_due()
        except SystemExit:  # rich raises it in the thread that prints, and only that thread ends
            self._is_broken = True

    def _leave_if_broken(self) -> None:
        # Raised again in the thread that works.
        if self._is_broken:
            raise SystemExit(1)

    def _print_if_due(self) -> None:
        now = time.monotonic()
        if self._is_silent or now - self._printed_at < LINE_SECONDS:
            return
        self._printed_at = now
        if self._doing:
            self._log.print(self.text(), soft_wrap=True)


def _rate(per_second: float) -> str:
    if per_second >= 1.0:
        return f"{per_second:,.3g}/s"
    return f"{60.0 * per_second:.3g}/min"


def _as_text(shown: RenderableType) -> RenderableType:
    """rich reads markup in the text of a spinner, even if its console reads none."""
    return Text(visible(shown)) if isinstance(shown, str) else shown

"""The one kind of console that this package prints with: foreign text stays text."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from distillspec.text.foreign import visible

_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


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

    def status(self, status: RenderableType, **options: Any) -> Status:
        """A spinner with a text, while something goes on; in a log, a line now and then."""
        return _Status(_as_text(status), console=self, **options)


class _Status(Status):
    """rich reads markup in the text of a spinner whatever its console says.

    A log has no spinner: each new text is a line there, at most one in ten seconds.
    """

    def __init__(self, status: RenderableType, *, console: Console, **options: Any) -> None:
        super().__init__(status, console=console, **options)
        self._is_log = not console.is_terminal
        self._log = console
        self._said_at = time.monotonic()

    def update(self, status: RenderableType | None = None, **options: Any) -> None:
        super().update(None if status is None else _as_text(status), **options)
        now = time.monotonic()
        if status is not None and self._is_log and now - self._said_at >= _LINE_SECONDS:
            self._said_at = now
            self._log.print(status, soft_wrap=True)


def _as_text(shown: RenderableType) -> RenderableType:
    return Text(visible(shown)) if isinstance(shown, str) else shown

"""What SIGINT and SIGTERM do: end a verb with a word, and training after its step, saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LAUNCHER = "DISTILLSPEC_LAUNCHER"  # process id of `distillspec.runtime.torchrun`, for its workers

_AGAIN_SECONDS = 1.0  # a launcher repeats the terminal's signal to its workers at once
_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 20.0
_LATER_SECONDS = 0.05


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a verb as Ctrl-C does."""


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Of a verb that was ended so: 128 and the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)


@contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM raises `Terminated` in the main thread: folders are left as by Ctrl-C.

    Neither it nor Ctrl-C is lost: what a finaliser would swallow comes again, a moment later.
    """
    # Python sets signal handlers in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with _ignored_ones_again():
            yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextmanager
def _ignored_ones_again() -> Iterator[None]:
    """Python prints an interrupt that comes within `__del__` or a weak reference's callback.

    It then goes on, and the verb would end as if nobody had asked it to stop.
    """
    before = sys.unraisablehook
    timers: list[threading.Timer] = []

    def hook(ignored: sys.UnraisableHookArgs) -> None:
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            before(ignored)
            return
        is_terminated = isinstance(ignored.exc_value, Terminated)
        number = signal.SIGTERM if is_terminated else signal.SIGINT
        # As a signal: an exception raised in this hook would be swallowed as well.
        timer = threading.Timer(_LATER_SECONDS, os.kill, (os.getpid(), number))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()


class StopRequest:
    """Whether somebody has asked training to stop; it then saves after its step, and stops.

    A second signal of the kind, a second or more after the first, ends it at once, unsaved.
    """

    def __init__(self, *, says: bool = True) -> None:
        """says: on stderr, what will happen; for rank 0."""
        self._says = says
        self._kind: type[KeyboardInterrupt] | None = None
        self._since = 0.0
        self._waits = False

    @property
    def is_made(self) -> bool:
        return self._kind is not None

    def interrupt(self) -> KeyboardInterrupt:
        """What to raise once training has stopped."""
        return (self._kind or KeyboardInterrupt)()

    def wait_for_steps(self) -> None:
        """From now on a signal waits for the end of the step; before, it ends training at once."""
        self._waits = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within, signals become a request."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = {kind: signal.signal(kind, self._note) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler if handler is not None else signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        now = time.monotonic()
        is_again = self._kind is kind and now - self._since >= _AGAIN_SECONDS
        if not self._waits or is_again:
            raise kind
        if self._kind is None:
            self._kind, self._since = kind, now
            if self._says:
                name = signal.Signals(number).name
                text = f"\n{name}: training stops after this step and saves it; a second {name} "
                os.write(2, f"{text}stops at once\n".encode())  # a print here could be in a print


def end_with_launcher() -> None:
    """Let this process end when the launcher that started it has ended, however.

    A worker whose launcher was killed would train on and hold its folder. It first gets SIGTERM,
    so that it can save, and SIGKILL if it does not end.
    """
    launcher = os.environ.get(LAUNCHER)
    if launcher is None and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    # Without our launcher, torchrun itself is the parent.
    parent = int(launcher) if launcher else os.getppid()
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    # A process whose parent has ended gets another parent.
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)

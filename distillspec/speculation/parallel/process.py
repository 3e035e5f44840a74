"""The target's hold on the draft's process: started, watched, and ended with it."""

from __future__ import annotations

import atexit
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, NoReturn, Self

from torch.multiprocessing import get_context

from distillspec.errors import DistillSpecError
from distillspec.speculation.parallel.channel import receive, send
from distillspec.speculation.parallel.shared_buffer import Heartbeat
from distillspec.speculation.parallel.worker import Failed, Ready, Stop, Worker, serve

_WAIT_SECONDS = 0.05
_END_SECONDS = 3.0
_AGAIN = "start the decoding again"
_GUARD = (
    "in a script of your own, call this below `if __name__ == '__main__':`, since the new process "
    "reads the script; else its own message stands above"
)

spawning = get_context("spawn")
"""Processes begin empty: a fork would copy threads' locks and a GPU's context."""


class _WouldWaitError(Exception):
    """The pipe is full, or what is in it is not whole."""


def _give_up() -> None:
    raise _WouldWaitError


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C: here for the moment of the block, and for good in what is started in it.

    A new process imports for seconds before it can ignore the signal itself, and would print a
    traceback. Only the main thread may change this, and only it is interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class DraftProcess:
    """A process that makes a servant and serves. A context manager, to be closed in any case.

    make: picklable. threads: of torch in that process. start_seconds: time to load and compile.
    hang_seconds: without a sign of life for so long it counts as hung.
    Every method raises DistillSpecError if the process failed, ended or hangs, and ends it; from
    then on, always the same one.
    """

    def __init__(
        self,
        make: Callable[[], Worker],
        *,
        name: str,
        threads: int | None = None,
        start_seconds: float = 600.0,
        hang_seconds: float = 15.0,
    ) -> None:
        self._name, self._hang_seconds = name, hang_seconds
        self._pulse = Heartbeat()
        self._link, theirs = spawning.Pipe()
        self._process = spawning.Process(
            target=serve, args=(theirs, make, self._pulse, threads), name=name, daemon=True
        )
        self._seen, self._seen_at = -1, time.monotonic()
        self._failure: DistillSpecError | None = None
        self._mend = _GUARD
        try:
            with _without_interrupts():
                self._process.start()
            # The interpreter's end asks its children to stop, and waits: for one that is stopped
            # itself, or hangs, for ever.
            atexit.register(self._process.kill)
        except BaseException as error:
            self._link.close()
            if self._process.pid is not None:
                self._process.kill()
            if not isinstance(error, Exception):
                raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            what = f"the draft's process cannot be started: {first}"
            raise self._error(what, _GUARD) from error
        finally:
            theirs.close()
        try:
            self.pid, self.capacity = self._ready(start_seconds)
        except BaseException:  # no caller has this object yet, so nobody else would end it
            self._process.kill()
            self.close()
            raise
        self._mend = _AGAIN

    @property
    def is_open(self) -> bool:
        """Neither closed nor failed."""
        return self._failure is None

    @property
    def busy_seconds(self) -> float:
        """Time it has worked so far."""
        return self._pulse.busy_seconds

    def send(self, message: Any) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            send(self._link, message, while_waiting=self._check_life)
        except OSError:
            self._raise_why()

    def answer(self) -> Any:
        """Wait for an answer."""
        if self._failure is not None:
            raise self._failure
        while not self._link.poll(_WAIT_SECONDS):
            self._check_life()
        return self._received()

    def check(self) -> None:
        """Costs microseconds; to be called once a round, where no answer is waited for.

        What an interrupted round did not wait for is thrown away.
        """
        if self._failure is not None:
            raise self._failure
        while self._link.poll():
            self._received()
        self._check_life()

    def close(self) -> None:
        """End the process; again and again is fine. One that does not end by itself is killed."""
        if self._failure is None:
            self._failure = self._error("the draft's process was closed")
        with suppress(OSError, _WouldWaitError):
            send(self._link, Stop(), while_waiting=_give_up)
            self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_END_SECONDS)
        atexit.unregister(self._process.kill)
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ready(self, seconds: float) -> Ready:
        """It loads and compiles."""
        until = time.monotonic() + seconds
        while not self._link.poll(_WAIT_SECONDS):
            self._check_life()
            if time.monotonic() > until:
                self._end(f"the draft's process was not ready after {seconds:g} s")
        ready = self._received()
        assert isinstance(ready, Ready)
        return ready

    def _received(self) -> Any:
        try:
            answer = receive(self._link, while_waiting=self._check_life)
        except (EOFError, OSError):
            self._raise_why()
        if isinstance(answer, Failed):
            self._end(answer.what, answer.fix)
        return answer

    def _check_life(self) -> None:
        if not self._process.is_alive() and not self._link.poll():
            self._raise_why()
        beats = self._pulse.beats
        now = time.monotonic()
        if beats != self._seen:
            self._seen, self._seen_at = beats, now
        elif self._seen > 0 and now - self._seen_at > self._hang_seconds:
            self._process.kill()  # SIGKILL: a stopped process takes no other
            self._end(f"the draft's process gave no sign of life for {self._hang_seconds:g} s")

    def _raise_why(self) -> NoReturn:
        """The process ended, or says that it will: find out why."""
        if self._failure is not None:
            raise self._failure
        with suppress(EOFError, OSError, _WouldWaitError):
            while self._link.poll():
                said = receive(self._link, while_waiting=_give_up)
                if isinstance(said, Failed):
                    self._end(said.what, said.fix)
        self._process.join(_END_SECONDS)
        code = self._process.exitcode or 0
        detail = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        hint = ", often for want of memory" if code == -9 else ""
        self._end(f"the draft's process {detail}{hint}")

    def _end(self, what: str, fix: str | None = None) -> NoReturn:
        self._failure = self._error(what, fix or self._mend)
        self.close()
        raise self._failure

    def _error(self, what: str, fix: str = _AGAIN) -> DistillSpecError:
        return DistillSpecError(what, where=f"{self._name}: parallel decoding", fix=fix)

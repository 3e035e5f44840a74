"""The target's handle of the draft's process: started, watched, and ended with it."""

from __future__ import annotations

import atexit
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NoReturn, Self

from torch.multiprocessing import get_context

from distillspec.errors import DistillSpecError
from distillspec.speculation.parallel.channel import receive, send
from distillspec.speculation.parallel.shared_buffer import Heartbeat
from distillspec.speculation.parallel.worker import Failed, Ready, Stop, Worker, serve

_WAIT_SECONDS = 0.05
_END_SECONDS = 3.0
_AGAIN = "start decoding again"
_GUARD = (
    "in your own script, call this below `if __name__ == '__main__':`, since the new process reads "
    "the script; in all other cases see its own message above"
)

spawning = get_context("spawn")
"""Processes begin empty: a fork would copy threads' locks and a GPU's context."""


class _WouldWaitError(Exception):
    """The pipe is full, or its message is incomplete."""


def _give_up() -> None:
    raise _WouldWaitError


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C for the block, and for good in a process that is started in it.

    A new process imports for seconds before it can ignore the signal itself, and would print a
    traceback. Only the main thread may change this, and only the main thread is interrupted.
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
    """A process that makes a worker and serves. A context manager; it must be closed.

    Every method raises DistillSpecError if the process failed, ended or hangs, and ends the
    process. From then on it raises the same error again.
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
        """Start the process and wait until its worker is ready.

        Args:
            make: Picklable; makes the worker in the process.
            name: Of the protocol, for errors.
            threads: Of torch in the process; None leaves the default.
            start_seconds: The longest time to load and compile.
            hang_seconds: The longest time without a sign of life.
        """
        self._name, self._hang_seconds = name, hang_seconds
        self._heartbeat = Heartbeat()
        self._channel, remote_end = spawning.Pipe()
        self._process = spawning.Process(
            target=serve, args=(remote_end, make, self._heartbeat, threads), name=name, daemon=True
        )
        self._seen, self._seen_at = -1, time.monotonic()
        self._failure: DistillSpecError | None = None
        # Until the worker is ready, errors advise a main guard, which the script may lack.
        self._fix = _GUARD
        self._start(remote_end)
        try:
            self.pid, self.capacity = self._ready(start_seconds)
        except BaseException:  # no caller has this object yet to end the process
            self._process.kill()
            self.close()
            raise
        self._fix = _AGAIN

    @property
    def is_open(self) -> bool:
        """Neither closed nor failed."""
        return self._failure is None

    @property
    def busy_seconds(self) -> float:
        """Time that the process has worked so far."""
        return self._heartbeat.busy_seconds

    def send(self, message: Any) -> None:
        """Send a message."""
        if self._failure is not None:
            raise self._failure
        try:
            send(self._channel, message, while_waiting=self._check_life)
        except OSError:
            self._raise_why()

    def answer(self) -> Any:
        """Wait for an answer."""
        if self._failure is not None:
            raise self._failure
        while not self._channel.poll(_WAIT_SECONDS):
            self._check_life()
        return self._received()

    def check(self) -> None:
        """Check that the process lives; costs microseconds.

        Call it once per round where no answer is awaited. It drops answers of a round that was
        interrupted.
        """
        if self._failure is not None:
            raise self._failure
        while self._channel.poll():
            self._received()
        self._check_life()

    def close(self) -> None:
        """End the process, and kill it if it does not end. Further calls do nothing."""
        if self._failure is None:
            self._failure = self._error("the draft's process was closed")
        # Ask the process to end. A full pipe is not worth a wait.
        with suppress(OSError, _WouldWaitError):
            send(self._channel, Stop(), while_waiting=_give_up)
            self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_END_SECONDS)
        atexit.unregister(self._process.kill)
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, remote_end: Connection) -> None:
        """Start the process, which gets its end of the pipe; this one closes it."""
        try:
            with _without_interrupts():
                self._process.start()
            # At its end the interpreter asks its children to stop and waits for them. It would wait
            # for ever for a child that is suspended or hangs.
            atexit.register(self._process.kill)
        except BaseException as error:
            self._channel.close()
            if self._process.pid is not None:
                self._process.kill()
            if not isinstance(error, Exception):
                raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            what = f"the draft's process cannot be started: {first}"
            raise self._error(what, _GUARD) from error
        finally:
            remote_end.close()

    def _ready(self, seconds: float) -> Ready:
        """Wait while the process loads and compiles."""
        until = time.monotonic() + seconds
        while not self._channel.poll(_WAIT_SECONDS):
            self._check_life()
            if time.monotonic() > until:
                self._end(f"the draft's process was not ready after {seconds:g} s")
        ready = self._received()
        assert isinstance(ready, Ready)
        return ready

    def _received(self) -> Any:
        try:
            answer = receive(self._channel, while_waiting=self._check_life)
        except (EOFError, OSError):
            self._raise_why()
        if isinstance(answer, Failed):
            self._end(answer.what, answer.fix)
        return answer

    def _check_life(self) -> None:
        # A dead process may have left a message. The caller reads it first.
        if not self._process.is_alive() and not self._channel.poll():
            self._raise_why()
        # Until its first beat the process imports. Silence counts from that beat on.
        beats = self._heartbeat.beats
        now = time.monotonic()
        if beats != self._seen:
            self._seen, self._seen_at = beats, now
        elif self._seen > 0 and now - self._seen_at > self._hang_seconds:
            self._process.kill()  # SIGKILL: a suspended process ignores other signals
            self._end(f"the draft's process gave no sign of life for {self._hang_seconds:g} s")

    def _raise_why(self) -> NoReturn:
        """Find out why the process ended or will end, and raise it."""
        if self._failure is not None:
            raise self._failure
        # The process may have sent the reason before it ended.
        with suppress(EOFError, OSError, _WouldWaitError):
            while self._channel.poll():
                message = receive(self._channel, while_waiting=_give_up)
                if isinstance(message, Failed):
                    self._end(message.what, message.fix)
        self._process.join(_END_SECONDS)
        # Otherwise only the exit code is known; a negative one is a signal.
        code = self._process.exitcode or 0
        detail = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        hint = ", often for lack of memory" if code == -9 else ""
        self._end(f"the draft's process {detail}{hint}")

    def _end(self, what: str, fix: str | None = None) -> NoReturn:
        # Set the failure before `close`, which otherwise records a plain closing.
        self._failure = self._error(what, fix or self._fix)
        self.close()
        raise self._failure

    def _error(self, what: str, fix: str = _AGAIN) -> DistillSpecError:
        return DistillSpecError(what, where=f"{self._name}: parallel decoding", fix=fix)

"""The draft's process: a loop that takes the target's messages and works in between."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import torch

from distillspec.errors import DistillSpecError
from distillspec.speculation.parallel.channel import send
from distillspec.speculation.parallel.shared_buffer import Heartbeat

_IDLE_SECONDS = 0.2  # how long a loop without work waits for a message
_BEAT_SECONDS = 0.1


class Worker(Protocol):
    """The draft's side of a protocol; made in its own process."""

    @property
    def capacity(self) -> int:
        """Tokens of the longest text it can hold."""
        ...

    def receive(self, message: Any) -> Any | None:
        """Take a message. A result that is not None is sent back."""
        ...

    def work(self) -> bool:
        """Do a short piece of work that no message asked for. False where there is none."""
        ...


class Ready(NamedTuple):
    """The worker is made and waits for messages."""

    pid: int
    capacity: int


class Failed(NamedTuple):
    """Why the process ended: `what` and `fix` of a `DistillSpecError`."""

    what: str
    fix: str


class Stop(NamedTuple):
    """End the process."""


def serve(
    channel: Connection, make: Callable[[], Worker], heartbeat: Heartbeat, threads: int | None
) -> None:
    """The entire life of the process. It ends with a `Stop`, a failure, or the other side's end.

    Args:
        channel: The process's end of the pipe.
        make: Makes the worker.
        heartbeat: Where the process shows that it lives.
        threads: Of torch; None leaves the default.
    """
    # Ctrl-C is for the target, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heartbeat.beat()  # before Ready, so that a process that stops now is noticed
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(heartbeat, _parent(), over), daemon=True)
    beating.start()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        worker = make()
        _send(channel, Ready(os.getpid(), worker.capacity))
        _loop(channel, worker, heartbeat)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the target's process is gone
    except BaseException as error:
        _report(channel, error)
        raise SystemExit(1) from None
    finally:
        over.set()
        beating.join()  # a thread inside torch while the interpreter ends would abort the process


def _parent() -> int:
    """The process that started this one, also where that process has ended since."""
    parent = parent_process()
    return os.getppid() if parent is None or parent.pid is None else parent.pid


def _beat(heartbeat: Heartbeat, parent: int, over: threading.Event) -> None:
    """Show signs of life, also during a long forward; end at once if the target's process ended.

    A process that is stopped has no thread that beats.
    """
    while not over.wait(_BEAT_SECONDS):
        heartbeat.beat()
        # A process whose parent has ended gets another parent.
        if os.getppid() != parent:
            os._exit(1)


def _send(channel: Connection, message: Any) -> None:
    send(channel, message, while_waiting=lambda: None)


def _loop(channel: Connection, worker: Worker, heartbeat: Heartbeat) -> None:
    is_working = False
    while True:
        # Messages come first; only an idle loop waits for them.
        while channel.poll(0.0 if is_working else _IDLE_SECONDS):
            message = channel.recv()
            if isinstance(message, Stop):
                return
            started = time.perf_counter()
            reply = worker.receive(message)
            heartbeat.add(time.perf_counter() - started)
            if reply is not None:
                _send(channel, reply)
            # The message may have made work, so try before waiting.
            is_working = True
        started = time.perf_counter()
        is_working = worker.work()
        if is_working:
            heartbeat.add(time.perf_counter() - started)


def _report(channel: Connection, error: BaseException) -> None:
    if isinstance(error, DistillSpecError):
        failed = Failed(error.what, error.fix)
    elif (
        # torch reports a failed allocation as RuntimeError.
        isinstance(error, MemoryError) or "allocate" in str(error) or "out of memory" in str(error)
    ):
        first = (str(error).strip() or "no memory left").splitlines()[0]
        failed = Failed(
            f"the draft's process ran out of memory: {first}",
            "lower nodes and layers, or max_new_tokens",
        )
    else:
        failed = Failed(
            f"the draft's process failed: {type(error).__name__}: {error}",
            "decode with this draft in one process (draft: {kind: chain}) to see the traceback",
        )
    try:
        _send(channel, failed)
    except OSError:
        return  # the other side is gone

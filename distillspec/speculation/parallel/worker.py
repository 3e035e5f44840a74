"""The draft's process: a loop that takes what the target says and works on until it says more."""

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

_IDLE_SECONDS = 0.2  # until a loop that has nothing to do looks again
_BEAT_SECONDS = 0.1


class Worker(Protocol):
    """What a protocol's draft does; made in its own process."""

    @property
    def capacity(self) -> int:
        """Tokens of the longest text it can hold."""
        ...

    def receive(self, message: Any) -> Any | None:
        """Take a message; what is returned, unless None, is sent back."""
        ...

    def work(self) -> bool:
        """A short piece of work nobody asked for; False where there is none."""
        ...


class Ready(NamedTuple):
    """The servant is made and waits for messages."""

    pid: int
    capacity: int


class Failed(NamedTuple):
    """Why the process ended, in the words of `DistillSpecError`."""

    what: str
    fix: str


class Stop(NamedTuple):
    """End the process."""


def serve(
    link: Connection, make: Callable[[], Worker], pulse: Heartbeat, threads: int | None
) -> None:
    """The whole life of the process. It ends with a `Stop`, a failure, or the other side's end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the target, which then ends this
    pulse.beat()  # whoever is ready has shown life, else one that stops now would never be missed
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(pulse, _parent(), over), daemon=True)
    beating.start()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        servant = make()
        _send(link, Ready(os.getpid(), servant.capacity))
        _loop(link, servant, pulse)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the target's process is gone
    except BaseException as error:
        _tell(link, error)
        raise SystemExit(1) from None
    finally:
        over.set()
        beating.join()  # a thread inside torch while the interpreter ends would abort the process


def _parent() -> int:
    """The process that started this one, also where it has ended since."""
    parent = parent_process()
    return os.getppid() if parent is None or parent.pid is None else parent.pid


def _beat(pulse: Heartbeat, parent: int, over: threading.Event) -> None:
    """Signs of life, also during a long forward; and an end at once if the target's process ended.

    A process that is stopped has no thread that beats.
    """
    while not over.wait(_BEAT_SECONDS):
        pulse.beat()
        if os.getppid() != parent:
            os._exit(1)


def _send(link: Connection, message: Any) -> None:
    send(link, message, while_waiting=lambda: None)


def _loop(link: Connection, servant: Worker, pulse: Heartbeat) -> None:
    is_working = False
    while True:
        while link.poll(0.0 if is_working else _IDLE_SECONDS):
            message = link.recv()
            if isinstance(message, Stop):
                return
            started = time.perf_counter()
            reply = servant.receive(message)
            pulse.add(time.perf_counter() - started)
            if reply is not None:
                _send(link, reply)
            is_working = True
        started = time.perf_counter()
        is_working = servant.work()
        if is_working:
            pulse.add(time.perf_counter() - started)


def _tell(link: Connection, error: BaseException) -> None:
    if isinstance(error, DistillSpecError):
        failed = Failed(error.what, error.fix)
    elif (
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
            "decode with this draft in one process (draft: {kind: chain}) to see more",
        )
    try:
        _send(link, failed)
    except OSError:
        return  # nobody is left to hear it

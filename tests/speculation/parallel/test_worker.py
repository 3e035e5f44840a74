from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, NamedTuple

import pytest

from distillspec.errors import DistillSpecError
from distillspec.speculation.parallel import worker
from distillspec.speculation.parallel.channel import send
from distillspec.speculation.parallel.shared_buffer import Heartbeat
from distillspec.speculation.parallel.worker import Failed, Ready, Stop, Worker, serve


class Echo:
    """Answers, and has as many pieces of work as the message says."""

    capacity = 9

    def __init__(self) -> None:
        self.left = 0
        self.done = 0

    def receive(self, message: int) -> int | None:
        if message == 0:
            return self.done
        self.left = message
        return None

    def work(self) -> bool:
        if self.left == 0:
            return False
        self.left -= 1
        self.done += 1
        return True


class Served(NamedTuple):
    link: Connection
    pulse: Heartbeat
    thread: Thread


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], Worker]], Served]]:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # only a main thread may set handlers
    running: list[Served] = []

    def begin(make: Callable[[], Worker]) -> Served:
        ours, theirs = Pipe()
        pulse = Heartbeat()

        def life() -> None:
            try:
                serve(theirs, make, pulse, None)
            except SystemExit:
                theirs.close()

        served = Served(ours, pulse, Thread(target=life, daemon=True))
        served.thread.start()
        running.append(served)
        return served

    yield begin
    for one in running:
        one.link.close()
        one.thread.join(5.0)
        assert not one.thread.is_alive()


def tell(link: Connection, message: Any) -> None:
    send(link, message, while_waiting=lambda: None)


def ask(link: Connection, message: Any) -> Any:
    tell(link, message)
    assert link.poll(5.0)
    return link.recv()


def test_it_works_on_by_itself_until_nothing_is_left(start: Any) -> None:
    served = start(Echo)
    assert isinstance(served.link.recv(), Ready)
    tell(served.link, 5)
    until = time.monotonic() + 5.0
    while ask(served.link, 0) < 5 and time.monotonic() < until:
        pass
    assert ask(served.link, 0) == 5
    assert served.pulse.busy_seconds > 0.0
    assert served.pulse.beats > 0


def test_whoever_is_ready_has_shown_life(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped just then, before its beating thread had a turn, must be missed."""
    monkeypatch.setattr(worker, "_beat", lambda *_: None)
    served = start(Echo)
    served.link.recv()
    assert served.pulse.beats == 1


def test_it_ends_when_it_is_told_to(start: Any) -> None:
    served = start(Echo)
    served.link.recv()
    tell(served.link, Stop())
    served.thread.join(5.0)
    assert not served.thread.is_alive()


def test_no_thread_of_it_goes_on_after_its_end(start: Any) -> None:
    """One that beats while the interpreter ends would abort the process."""
    before = set(threading.enumerate())
    served = start(Echo)
    served.link.recv()
    tell(served.link, Stop())
    served.thread.join(5.0)
    assert set(threading.enumerate()) <= before


def test_it_ends_when_the_other_side_is_gone(start: Any) -> None:
    served = start(Echo)
    served.link.recv()
    served.link.close()
    served.thread.join(5.0)
    assert not served.thread.is_alive()


def test_a_fault_of_the_user_keeps_its_words(start: Any) -> None:
    def make() -> Worker:
        raise DistillSpecError("no such folder", where="drafts", fix="name another one")

    assert start(make).link.recv() == Failed("no such folder", "name another one")


def test_a_fault_of_ours_is_told_with_its_kind(start: Any) -> None:
    class Broken(Echo):
        def work(self) -> bool:
            raise IndexError("beyond the end")

    served = start(Broken)
    served.link.recv()
    assert "IndexError: beyond the end" in ask(served.link, 1).what

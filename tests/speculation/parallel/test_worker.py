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
    """Answers, and has as many pieces of work as the message asks."""

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
    channel: Connection
    heartbeat: Heartbeat
    thread: Thread


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], Worker]], Served]]:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # only a main thread may set handlers
    running: list[Served] = []

    def begin(make: Callable[[], Worker]) -> Served:
        near, far = Pipe()
        heartbeat = Heartbeat()

        def life() -> None:
            try:
                serve(far, make, heartbeat, None)
            except SystemExit:
                far.close()

        served = Served(near, heartbeat, Thread(target=life, daemon=True))
        served.thread.start()
        running.append(served)
        return served

    yield begin
    for served in running:
        served.channel.close()
        served.thread.join(5.0)
        assert not served.thread.is_alive()


def post(channel: Connection, message: Any) -> None:
    send(channel, message, while_waiting=lambda: None)


def ask(channel: Connection, message: Any) -> Any:
    post(channel, message)
    assert channel.poll(5.0)
    return channel.recv()


def test_it_works_on_by_itself_until_nothing_is_left(start: Any) -> None:
    served = start(Echo)
    assert isinstance(served.channel.recv(), Ready)
    post(served.channel, 5)
    until = time.monotonic() + 5.0
    while ask(served.channel, 0) < 5 and time.monotonic() < until:
        pass
    assert ask(served.channel, 0) == 5
    assert served.heartbeat.busy_seconds > 0.0
    assert served.heartbeat.beats > 0


def test_whoever_is_ready_has_shown_life(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped just then, before its beating thread had a turn, must be missed."""
    monkeypatch.setattr(worker, "_beat", lambda *_: None)
    served = start(Echo)
    served.channel.recv()
    assert served.heartbeat.beats == 1


def test_it_ends_by_a_stop_message(start: Any) -> None:
    served = start(Echo)
    served.channel.recv()
    post(served.channel, Stop())
    served.thread.join(5.0)
    assert not served.thread.is_alive()


def test_no_thread_of_it_goes_on_after_its_end(start: Any) -> None:
    """One that beats while the interpreter ends would abort the process."""
    before = set(threading.enumerate())
    served = start(Echo)
    served.channel.recv()
    post(served.channel, Stop())
    served.thread.join(5.0)
    assert set(threading.enumerate()) <= before


def test_it_ends_when_the_other_side_is_gone(start: Any) -> None:
    served = start(Echo)
    served.channel.recv()
    served.channel.close()
    served.thread.join(5.0)
    assert not served.thread.is_alive()


def test_a_fault_of_the_user_keeps_its_words(start: Any) -> None:
    def make() -> Worker:
        raise DistillSpecError("no such folder", where="drafts", fix="name another one")

    assert start(make).channel.recv() == Failed("no such folder", "name another one")


def test_an_internal_error_is_reported_with_its_type(start: Any) -> None:
    class Broken(Echo):
        def work(self) -> bool:
            raise IndexError("beyond the end")

    served = start(Broken)
    served.channel.recv()
    assert "IndexError: beyond the end" in ask(served.channel, 1).what

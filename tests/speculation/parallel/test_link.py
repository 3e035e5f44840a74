from __future__ import annotations

from multiprocessing import Pipe
from threading import Thread

import pytest

from distillspec.speculation.parallel.link import send


def never() -> None:
    raise AssertionError("nothing is to be waited for")


@pytest.mark.parametrize("message", [None, (1, [2, 3]), list(range(10))], ids=str)
def test_what_is_received_is_what_was_sent(message: object) -> None:
    ours, theirs = Pipe()
    send(ours, message, never)
    send(ours, "next", never)
    assert theirs.recv() == message
    assert theirs.recv() == "next"


def test_a_message_larger_than_the_pipe_goes_through_by_and_by() -> None:
    ours, theirs = Pipe()
    found: list[list[int]] = []
    reader = Thread(target=lambda: found.append(theirs.recv()))
    reader.start()
    send(ours, list(range(500_000)), lambda: None)
    reader.join(10.0)
    assert found == [list(range(500_000))]


def test_a_full_pipe_asks_what_to_do_and_never_blocks() -> None:
    class TooLongError(Exception):
        pass

    def give_up() -> None:
        raise TooLongError

    ours, theirs = Pipe()
    with pytest.raises(TooLongError):
        while True:
            send(ours, 1, give_up)
    theirs.close()


def test_the_other_sides_end_is_an_error() -> None:
    ours, theirs = Pipe()
    theirs.close()
    with pytest.raises(BrokenPipeError):
        for _ in range(2):
            send(ours, 1, lambda: None)

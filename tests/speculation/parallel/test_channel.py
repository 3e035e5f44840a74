from __future__ import annotations

import os
import struct
from multiprocessing import Pipe
from threading import Thread

import pytest

from distillspec.speculation.parallel.channel import receive, send


def never() -> None:
    raise AssertionError("nothing is to be waited for")


@pytest.mark.parametrize("message", [None, (1, [2, 3]), list(range(10))], ids=str)
def test_what_is_received_is_what_was_sent(message: object) -> None:
    near, far = Pipe()
    send(near, message, never)
    send(near, "next", never)
    assert receive(far, never) == message
    assert receive(far, never) == "next"


def test_connections_of_multiprocessing_speak_the_same() -> None:
    near, far = Pipe()
    send(near, [1, 2], never)
    assert far.recv() == [1, 2]
    far.send([3, 4])
    assert receive(near, never) == [3, 4]


def test_a_message_larger_than_the_pipe_goes_through_by_and_by() -> None:
    near, far = Pipe()
    received: list[list[int]] = []
    reader = Thread(target=lambda: received.append(receive(far, lambda: None)))
    reader.start()
    send(near, list(range(500_000)), lambda: None)
    reader.join(10.0)
    assert received == [list(range(500_000))]


class TooLongError(Exception):
    pass


def give_up() -> None:
    raise TooLongError


def test_a_full_pipe_asks_what_to_do_and_never_blocks() -> None:
    near, far = Pipe()
    with pytest.raises(TooLongError):
        while True:
            send(near, 1, give_up)
    far.close()


@pytest.mark.parametrize("bytes_sent", [0, 3, 4, 10])
def test_a_part_of_a_message_asks_what_to_do_and_never_blocks(bytes_sent: int) -> None:
    near, far = Pipe()
    os.write(far.fileno(), (struct.pack("!i", 20) + bytes(20))[:bytes_sent])
    with pytest.raises(TooLongError):
        receive(near, give_up)


@pytest.mark.parametrize("bytes_sent", [0, 3, 4, 10])
def test_a_message_that_ends_before_its_end_is_an_error(bytes_sent: int) -> None:
    near, far = Pipe()
    os.write(far.fileno(), (struct.pack("!i", 20) + bytes(20))[:bytes_sent])
    far.close()
    with pytest.raises(EOFError):
        receive(near, never)


def test_the_other_sides_end_is_an_error() -> None:
    near, far = Pipe()
    far.close()
    with pytest.raises(BrokenPipeError):
        for _ in range(2):
            send(near, 1, lambda: None)

"""Messages between the two processes: nobody is stopped by a side that has stopped."""

from __future__ import annotations

import os
import pickle
import select
import socket
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_SIZE = "!i"  # bytes that follow, as `Connection` writes it
_WAIT_SECONDS = 0.05


def send(link: Connection, message: Any, while_waiting: Callable[[], None]) -> None:
    """Any picklable message, as `link.recv` takes it. link: an end of `multiprocessing.Pipe()`.

    While the pipe is full, `while_waiting` is called again and again. It may raise; the message is
    then lost, and the pipe can only be closed. OSError if the other side is gone.
    """
    data = pickle.dumps(message)
    left = memoryview(struct.pack(_SIZE, len(data)) + data)
    with _as_socket(link) as pipe:
        while left:
            try:
                left = left[pipe.send(left, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                select.select([], [pipe], [], _WAIT_SECONDS)
                while_waiting()


def receive(link: Connection, while_waiting: Callable[[], None]) -> Any:
    """The next message of `send`, of which the other side may have sent only a part so far.

    While it is not whole, `while_waiting` is called again and again. It may raise; the pipe can
    then only be closed. EOFError or OSError if the other side is gone.
    """
    with _as_socket(link) as pipe:
        (size,) = struct.unpack(_SIZE, _exactly(struct.calcsize(_SIZE), pipe, while_waiting))
        return pickle.loads(_exactly(size, pipe, while_waiting))


def _exactly(size: int, pipe: socket.socket, while_waiting: Callable[[], None]) -> bytearray:
    data = bytearray(size)
    left = memoryview(data)
    while left:
        try:
            count = pipe.recv_into(left, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            select.select([pipe], [], [], _WAIT_SECONDS)
            while_waiting()
            continue
        if count == 0:
            raise EOFError
        left = left[count:]
    return data


def _as_socket(link: Connection) -> socket.socket:
    """The same pipe, to be closed apart; a `Connection` can only block."""
    return socket.socket(fileno=os.dup(link.fileno()))

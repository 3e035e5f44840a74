"""Messages between the two processes; a side that has stopped never blocks the other one."""

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


def send(channel: Connection, message: Any, while_waiting: Callable[[], None]) -> None:
    """Send any picklable message, to be read by `channel.recv` or `receive`.

    While the pipe is full, `while_waiting` is called again and again. If it raises, the message is
    lost and the pipe can only be closed.

    Args:
        channel: An end of `multiprocessing.Pipe()`.
        message: Any picklable object.
        while_waiting: Raises if there is no point in waiting.

    Raises:
        OSError: The other side is gone.
    """
    data = pickle.dumps(message)
    left = memoryview(struct.pack(_SIZE, len(data)) + data)
    with _as_socket(channel) as pipe:
        while left:
            try:
                # Not `setblocking(False)`: the flag would also change the `Connection`.
                left = left[pipe.send(left, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                select.select([], [pipe], [], _WAIT_SECONDS)
                while_waiting()


def receive(channel: Connection, while_waiting: Callable[[], None]) -> Any:
    """The next message of `send`, also where the other side has sent only a part so far.

    While the message is incomplete, `while_waiting` is called again and again. If it raises, the
    pipe can only be closed.

    Args:
        channel: An end of `multiprocessing.Pipe()`.
        while_waiting: Raises if there is no point in waiting.

    Raises:
        EOFError, OSError: The other side is gone.
    """
    with _as_socket(channel) as pipe:
        (size,) = struct.unpack(_SIZE, _exactly(struct.calcsize(_SIZE), pipe, while_waiting))
        return pickle.loads(_exactly(size, pipe, while_waiting))


def _exactly(size: int, pipe: socket.socket, while_waiting: Callable[[], None]) -> bytearray:
    """The next `size` bytes."""
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


def _as_socket(channel: Connection) -> socket.socket:
    """The same pipe as a socket, to be closed separately; a `Connection` can only block."""
    return socket.socket(fileno=os.dup(channel.fileno()))

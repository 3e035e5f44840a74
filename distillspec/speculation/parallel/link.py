"""Messages between the two processes: who sends never waits for the other side to listen."""

from __future__ import annotations

import os
import pickle
import select
import socket
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_WAIT_SECONDS = 0.05


def send(link: Connection, message: Any, while_waiting: Callable[[], None]) -> None:
    """Any picklable message, as `link.recv` takes it. link: an end of `multiprocessing.Pipe()`.

    While the pipe is full, `while_waiting` is called again and again. It may raise; the message is
    then lost, and the pipe can only be closed. OSError if the other side is gone.
    """
    data = pickle.dumps(message)
    left = memoryview(struct.pack("!i", len(data)) + data)
    with socket.socket(fileno=os.dup(link.fileno())) as pipe:
        while left:
            try:
                left = left[pipe.send(left, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                select.select([], [pipe], [], _WAIT_SECONDS)
                while_waiting()

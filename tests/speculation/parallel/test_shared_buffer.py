from __future__ import annotations

import pytest

from distillspec.errors import DistillSpecError
from distillspec.speculation.parallel.candidates import Snapshot
from distillspec.speculation.parallel.process import spawning
from distillspec.speculation.parallel.shared_buffer import Heartbeat, Published, SharedBuffer

SOME = Published(3, 20, 5, Snapshot([7, 8, 9], [-1, -1, 0], [-0.5, -1.5, -0.75]))


def read(board: SharedBuffer) -> Published:
    return board.read(while_waiting=lambda: pytest.fail("nobody holds it"))


def test_what_is_read_is_what_was_published_last() -> None:
    board = SharedBuffer(spawning, 4)
    assert read(board) == Published(0, 0, 0, Snapshot([], [], []))
    board.publish(SOME)
    assert read(board) == SOME
    fewer = Published(3, 21, 6, Snapshot([1], [-1], [0.0]))
    board.publish(fewer)
    assert read(board) == fewer


def test_more_candidates_than_there_is_room_for_are_a_fault_of_ours() -> None:
    with pytest.raises(AssertionError, match="room"):
        SharedBuffer(spawning, 2).publish(SOME)


def test_a_reader_asks_whether_the_writer_lives_as_long_as_it_is_held() -> None:
    board = SharedBuffer(spawning, 4)
    board.publish(SOME)
    board._lock.acquire()
    asked: list[None] = []

    def lives() -> None:
        asked.append(None)
        if len(asked) == 2:
            board._lock.release()

    assert board.read(while_waiting=lives) == SOME
    assert len(asked) == 2


def test_a_reader_does_not_wait_for_ever_for_a_writer_that_died() -> None:
    board = SharedBuffer(spawning, 4)
    board._lock.acquire()

    def is_dead() -> None:
        raise DistillSpecError("the draft ended", where="here", fix="again")

    with pytest.raises(DistillSpecError, match="the draft ended"):
        board.read(while_waiting=is_dead)


def test_a_pulse_adds_up() -> None:
    heartbeat = Heartbeat()
    heartbeat.beat()
    heartbeat.beat()
    heartbeat.add(0.25)
    heartbeat.add(0.5)
    assert (heartbeat.beats, heartbeat.busy_seconds) == (2, 0.75)

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from distillspec.speculation.runner import Room, Runner, room_after
from tests.speculation.bigram import BigramRunner

TABLE = torch.arange(9, dtype=torch.float64).view(3, 3)


def test_the_logits_after_a_token_are_its_row() -> None:
    logits = BigramRunner(TABLE).feed(torch.tensor([[2, 0]]))
    assert torch.equal(logits, TABLE[[2, 0]].unsqueeze(0))
    assert logits.dtype == torch.float64


def test_the_cache_grows_rolls_back_and_empties() -> None:
    runner = BigramRunner(TABLE)
    runner.feed(torch.tensor([[0, 1, 2]]))
    runner.feed(torch.tensor([[1]]))
    assert runner.length == 4
    runner.rollback(2)
    runner.feed(torch.tensor([[2]]))
    assert runner.tokens.tolist() == [[0, 1, 2]]
    runner.rollback(runner.length)
    assert runner.length == 3
    runner.reset()
    assert runner.length == 0
    runner.synchronize()


def test_rows_of_equal_length_are_held_side_by_side() -> None:
    runner = BigramRunner(TABLE)
    assert runner.feed(torch.tensor([[0], [2]])).shape == (2, 1, 3)
    runner.feed(torch.tensor([[1, 1], [0, 2]]))
    assert runner.tokens.tolist() == [[0, 1, 1], [2, 0, 2]]
    runner.reset()
    runner.feed(torch.tensor([[1]]))
    assert runner.tokens.tolist() == [[1]]


def test_feeding_beyond_the_capacity_is_refused() -> None:
    runner = BigramRunner(TABLE, capacity=3)
    runner.feed(torch.tensor([[0, 1, 2]]))
    with pytest.raises(AssertionError, match="capacity"):
        runner.feed(torch.tensor([[0]]))


def test_a_bigram_table_is_a_runner() -> None:
    runner: Runner = BigramRunner(TABLE, capacity=7)
    assert (runner.vocab_size, runner.length, runner.capacity) == (3, 0, 7)


def test_a_runner_has_room_for_what_its_cache_and_its_model_can_still_hold() -> None:
    runner = BigramRunner(TABLE, capacity=7)
    runner.feed(torch.tensor([[0, 1]]))
    assert room_after(runner, [2, 2, 2]) == Room(slots=2, positions=2)
    assert room_after(runner, [2] * 6) == Room(slots=-1, positions=-1)


class Pieces(BigramRunner):
    """Reads every token as two pieces."""

    def room_after(self, tokens: Sequence[int]) -> Room:
        left = self.capacity - 2 * (self.length + len(tokens))
        return Room(left, left)


def test_the_room_of_a_model_that_reads_pieces_is_its_own_answer() -> None:
    runner = Pieces(TABLE, capacity=7)
    runner.feed(torch.tensor([[0]]))
    assert room_after(runner, [1]) == Room(slots=3, positions=3)

from __future__ import annotations

import torch

from distillspec.training.replay import Completed, ReplayBuffer


def rows(*tokens: int) -> list[Completed]:
    return [Completed((1, 2), (token, 0)) for token in tokens]


def drawn(ring: ReplayBuffer, count: int, step: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [row.response[0] for row in ring.draw(count, step, generator)]


def test_only_responses_of_earlier_steps_that_are_young_enough_are_drawn() -> None:
    ring = ReplayBuffer(100, max_age=2)
    for step in range(5):
        ring.add(rows(10 * step, 10 * step + 1), step)
    assert sorted(drawn(ring, 9, 4)) == [20, 21, 30, 31]
    assert sorted(drawn(ring, 9, 1)) == [0, 1]
    assert drawn(ring, 9, 0) == []
    assert drawn(ring, 9, 50) == []


def test_a_step_draws_different_ones_at_random() -> None:
    ring = ReplayBuffer(100, max_age=5)
    ring.add(rows(*range(20)), 0)
    first = drawn(ring, 8, 1, seed=1)
    assert len(set(first)) == 8
    assert drawn(ring, 8, 1, seed=1) == first
    assert drawn(ring, 8, 1, seed=2) != first


def test_the_oldest_give_way() -> None:
    ring = ReplayBuffer(3, max_age=5)
    ring.add(rows(1, 2), 0)
    ring.add(rows(3, 4), 0)
    assert sorted(drawn(ring, 9, 1)) == [2, 3, 4]


def test_what_the_target_says_is_kept_with_the_row_it_was_said_of() -> None:
    ring = ReplayBuffer(3, max_age=5)
    same = rows(7, 7)
    ring.add(same, 0)
    ring.learn(same[1], torch.ones(2, 4))
    ring.learn(rows(7)[0], torch.zeros(2, 4))  # another one: not in the ring
    states = [row.states for row in ring.draw(2, 1, torch.Generator().manual_seed(0))]
    assert sorted(state is None for state in states) == [False, True]
    (known,) = [state for state in states if state is not None]
    assert torch.equal(known, torch.ones(2, 4))


def test_a_ring_that_was_saved_draws_the_same() -> None:
    ring, other = ReplayBuffer(8, max_age=5), ReplayBuffer(8, max_age=5)
    some = rows(*range(6))
    ring.add(some, 3)
    ring.learn(some[2], torch.ones(2, 4))
    other.load_state_dict(ring.state_dict())
    assert drawn(other, 4, 5) == drawn(ring, 4, 5)
    assert [row.states is None for row in other.draw(6, 4, torch.Generator().manual_seed(0))] == [
        row.states is None for row in ring.draw(6, 4, torch.Generator().manual_seed(0))
    ]

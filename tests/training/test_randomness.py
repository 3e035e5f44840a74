from __future__ import annotations

import torch

from distillspec.training.randomness import stream, stream_seed


def test_seeds_are_the_same_in_every_process() -> None:
    assert stream_seed(0, "rollout", 3, 1) == 4469640723056124473


def test_purpose_and_each_position_make_a_stream_of_its_own() -> None:
    places = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 0), (0, "a", 11)]
    seeds = {stream_seed(place[0], str(place[1]), *place[2:]) for place in places}  # type: ignore[arg-type]
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_stream_repeats_itself_from_its_position() -> None:
    first, again = (stream(7, "x", 2, device=torch.device("cpu")) for _ in range(2))
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=again))

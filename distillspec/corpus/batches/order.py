"""Which prompt is trained on at which step, and where its response comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distillspec.recipe.distill import Origin, SourceShares
from distillspec.runtime.seeds import derive_seed

_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, taken modulo 1, fill the interval most evenly


class Choice(NamedTuple):
    """place: of the prompt in the given list. origin: of its response."""

    place: int
    origin: Origin


class SequenceOrder:
    """An endless order of prompts, a pure function of (seed, step): nothing to save but the step.

    Each epoch visits every prompt once, in an order of its own. Origins follow the shares as
    closely as whole sequences can within a step, or whole steps within the run, and on average
    exactly. Where the shares are of tokens, every sequence is "draft": it begins to write them.
    """

    def __init__(
        self,
        count: int,
        shares: SourceShares,
        *,
        batch_size: int,
        seed: int,
        lengths: Sequence[int] = (),
        bucket_steps: int = 1,
    ) -> None:
        """lengths: of each prompt's text, tokens, by which the sequences of `bucket_steps`
        neighbouring steps are sorted, then dealt out in turn to steps whose order is drawn.
        """
        assert count > 0
        assert bucket_steps == 1 or len(lengths) == count
        self._lengths, self._bucket = lengths, bucket_steps
        self._count, self._batch, self._seed = count, batch_size, seed
        self._by_step = shares.per == "batch"
        of: dict[Origin, float] = {"draft": 1.0} if shares.per == "token" else shares.of
        self._origins = list(of)
        self._bounds = np.cumsum(list(of.values()))[:-1]
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def step(self, step: int) -> list[Choice]:
        """All `batch_size` sequences of one optimizer step, over all processes."""
        places = self._places(step)
        return [Choice(p, o) for p, o in zip(places, self._origins_of(step), strict=True)]

    def _places(self, step: int) -> list[int]:
        if self._bucket == 1:
            first = step * self._batch
            return [self._place(turn) for turn in range(first, first + self._batch)]
        bucket, within = divmod(step, self._bucket)
        size = self._bucket * self._batch
        places = [self._place(turn) for turn in range(bucket * size, (bucket + 1) * size)]
        places.sort(key=lambda place: self._lengths[place])
        generator = np.random.default_rng(derive_seed(self._seed, "bucket", bucket))
        first = int(generator.permutation(self._bucket)[within]) * self._batch
        return places[first : first + self._batch]

    def _place(self, turn: int) -> int:
        epoch, within = divmod(turn, self._count)
        if self._epoch is None or self._epoch[0] != epoch:
            generator = np.random.default_rng(derive_seed(self._seed, "order", epoch))
            self._epoch = (epoch, generator.permutation(self._count))
        return int(self._epoch[1][within])

    def _origins_of(self, step: int) -> list[Origin]:
        """Evenly spaced points with one random offset, dealt to the sequences at random."""
        if self._by_step:
            offset = np.random.default_rng(derive_seed(self._seed, "origin of steps")).random()
            share = np.searchsorted(self._bounds, (offset + step * _GOLDEN) % 1.0, side="right")
            return [self._origins[share]] * self._batch
        generator = np.random.default_rng(derive_seed(self._seed, "origins", step))
        points = (generator.permutation(self._batch) + generator.random()) / self._batch
        shares = np.searchsorted(self._bounds, points, side="right")
        return [self._origins[share] for share in shares]

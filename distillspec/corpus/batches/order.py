"""The order of training: which prompt a step uses, and where its response comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distillspec.recipe.text_source import Origin, SourceShares
from distillspec.runtime.seeds import derive_seed

_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, taken modulo 1, fill the interval most evenly


class Choice(NamedTuple):
    """One sequence of a step.

    Attributes:
        place: Index of the prompt in the list of prompts.
        origin: Where its response comes from.
    """

    place: int
    origin: Origin


class SequenceOrder:
    """An endless order of prompts, a pure function of (seed, step), so only the step is saved.

    Each epoch visits every prompt once, in a new order. Origins follow the shares exactly on
    average, and within a step (or a run, for shares of steps) as closely as entire sequences allow.
    Where the shares are of tokens, every sequence is "draft", which starts writing the response.
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
        """Prepare the order.

        Args:
            count: Number of prompts.
            shares: The share of each origin.
            batch_size: Sequences per step, over all processes.
            seed: Of the order.
            lengths: Length of each prompt's text, tokens; needed for `bucket_steps` above 1.
            bucket_steps: Neighbouring steps whose sequences are sorted by length together. Each
                step then takes sequences of similar length, and the order of the steps is random.
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
        indices, origins = self._indices(step), self._origins_of(step)
        return [Choice(i, origin) for i, origin in zip(indices, origins, strict=True)]

    def _indices(self, step: int) -> list[int]:
        if self._bucket == 1:
            first = step * self._batch
            return [self._index(turn) for turn in range(first, first + self._batch)]
        # Sort the sequences of the bucket by length. Each step takes its part of them, and the
        # steps of a bucket come in random order.
        bucket, within = divmod(step, self._bucket)
        size = self._bucket * self._batch
        indices = [self._index(turn) for turn in range(bucket * size, (bucket + 1) * size)]
        indices.sort(key=lambda index: self._lengths[index])
        generator = np.random.default_rng(derive_seed(self._seed, "bucket", bucket))
        first = int(generator.permutation(self._bucket)[within]) * self._batch
        return indices[first : first + self._batch]

    def _index(self, turn: int) -> int:
        epoch, within = divmod(turn, self._count)
        if self._epoch is None or self._epoch[0] != epoch:
            generator = np.random.default_rng(derive_seed(self._seed, "order", epoch))
            self._epoch = (epoch, generator.permutation(self._count))
        return int(self._epoch[1][within])

    def _origins_of(self, step: int) -> list[Origin]:
        """Assign evenly spaced points with one random offset to the sequences at random."""
        if self._by_step:
            offset = np.random.default_rng(derive_seed(self._seed, "origin of steps")).random()
            share = np.searchsorted(self._bounds, (offset + step * _GOLDEN) % 1.0, side="right")
            return [self._origins[share]] * self._batch
        generator = np.random.default_rng(derive_seed(self._seed, "origins", step))
        points = (generator.permutation(self._batch) + generator.random()) / self._batch
        shares = np.searchsorted(self._bounds, points, side="right")
        return [self._origins[share] for share in shares]

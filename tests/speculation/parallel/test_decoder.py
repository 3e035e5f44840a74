from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from distillspec.speculation.parallel.decoder import ParallelDecoder
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.records import Round, RoundRecord, TokenStatus
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.bigram import BigramRunner


class Colleague:
    """Has worked for a second more whenever it is asked."""

    capacity = 9

    def __init__(self) -> None:
        self._seconds = 0.0

    @property
    def busy_seconds(self) -> float:
        self._seconds += 1.0
        return self._seconds


class OneByOne(ParallelDecoder):
    """Emits 7 a round, and claims a quarter of a second of work for the prompt and for each."""

    def _start(self, prompt: Tensor, max_new_tokens: int) -> None:
        self._busy += 0.25

    def _rounds(
        self, prompt: Tensor, max_new_tokens: int, eos_token_ids: frozenset[int]
    ) -> Iterator[Round]:
        for _ in range(max_new_tokens):
            self._busy += 0.25
            yield Round([7], [TokenStatus.PLAIN], RoundRecord(0, 0, 1, 0, cut=False))


def decoder() -> OneByOne:
    return OneByOne(
        BigramRunner(torch.zeros(9, 9)),
        Colleague(),
        SamplingPolicy(),
        GeneratorSource(torch.Generator()),
    )


def test_busy_seconds_are_those_of_the_rounds_of_this_text_on_both_sides() -> None:
    parallel = decoder()
    for _ in range(2):
        generation = parallel.decode(torch.tensor([1]), max_new_tokens=3)
        assert generation.busy == (0.75, 1.0)
        assert (generation.tokens, generation.finished) == ([7, 7, 7], False)


def test_a_stream_has_the_same_rounds() -> None:
    rounds = decoder().rounds(torch.tensor([1]), max_new_tokens=2)
    assert [emitted.tokens for emitted in rounds] == [[7], [7]]


def test_a_text_that_ends_with_an_end_token_is_finished() -> None:
    generation = decoder().decode(torch.tensor([1]), max_new_tokens=1, eos_token_ids=frozenset({7}))
    assert generation.finished

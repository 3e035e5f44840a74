"""Arms with known distributions, and the regret of a chooser on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from distillspec.speculation.choose.chooser import Chooser, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from tests.speculation.decoding.test_engine import standard

MOST = 4  # tokens drafted at most: a round emits 1 to 5


def arms(count: int) -> list[Configuration]:
    return [standard(gamma) for gamma in range(1, count + 1)]


def tokens_of(mean: float, generator: torch.Generator) -> int:
    """1 + MOST trials of probability (mean - 1) / MOST."""
    uniforms = torch.rand(MOST, generator=generator)
    return 1 + int((uniforms < (mean - 1.0) / MOST).sum())


def rounds_to_emit(
    length: int,
    chooser: Chooser,
    tokens: Callable[[int, int], int],
) -> int:
    """Rounds until `length` tokens are emitted; tokens(arm, round) is what an arm earns there."""
    emitted = rounds = 0
    while emitted < length:
        arm = chooser.choose().gamma - 1
        got = tokens(arm, rounds)
        chooser.learn(RoundOutcome(got, 1.0))
        emitted += got
        rounds += 1
    return rounds


def stopping_time_regret(
    make: Callable[[int], Chooser], means: Sequence[float], length: int, seeds: int
) -> float:
    """Rounds beyond those of the best arm alone, in the mean over seeds.

    By Wald's identity it is what the rounds of other arms lack in tokens, over the best mean, which
    has far less noise than a difference of two counts of rounds.
    """

    def regret(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        played: Counter[int] = Counter()

        def tokens(arm: int, _: int) -> int:
            played[arm] += 1
            return tokens_of(means[arm], generator)

        rounds_to_emit(length, make(seed), tokens)
        return sum(count * (max(means) - means[arm]) for arm, count in played.items()) / max(means)

    return sum(map(regret, range(seeds))) / seeds

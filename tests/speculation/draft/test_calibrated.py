"""Stopping by costs: against decisions by hand, the best fixed length, and exact enumeration."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch

from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.calibrated import CalibratedAdaEDL
from distillspec.speculation.records import Round
from distillspec.speculation.round_times import BlockTime, RoundTimes
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.branches import (
    Branches,
    autoregressive_distribution,
    distribution_by_rounds,
    total_variation,
)
from tests.speculation.decoding.test_engine import PROMPT, random_pair, standard

LOGITS, TOKEN, POLICY = torch.zeros(4), torch.tensor(0), SamplingPolicy()
CHEAP = RoundTimes.of_chains(0.01, {1: 1.0, 8: 1.05})
DEAR = RoundTimes.of_chains(1.0, {1: 1.0, 8: 1.05})


def nats(guess: float) -> torch.Tensor:
    """The entropy that AdaEDL's guess is made of."""
    return torch.tensor((1.0 - guess) ** 2 / 0.2)


def drafted(rule: CalibratedAdaEDL, guesses: list[float], gamma: int) -> tuple[int, int]:
    """Drafted tokens and draft steps of a chain with these guesses, as `ChainDraft` asks."""
    rule.begins(LOGITS, POLICY, nats(guesses[0]))
    tokens = steps = 1
    while tokens < gamma and not rule.stops_after(LOGITS, TOKEN, POLICY):
        steps += 1
        if rule.stops(LOGITS, POLICY, nats(guesses[tokens])):
            break
        tokens += 1
    return tokens, steps


def test_a_free_step_is_always_made_and_one_as_dear_as_the_targets_never() -> None:
    assert drafted(CalibratedAdaEDL(CHEAP, 8), [0.9] * 8, 8) == (8, 8)
    assert drafted(CalibratedAdaEDL(DEAR, 8), [0.9] * 8, 8) == (1, 1)


def test_it_drafts_on_after_a_sure_token_and_not_after_an_unsure_one() -> None:
    times = RoundTimes.of_chains(0.2, {1: 1.0, 8: 1.05})
    assert drafted(CalibratedAdaEDL(times, 8), [0.95] * 8, 8)[0] >= 3
    assert drafted(CalibratedAdaEDL(times, 8), [0.15] * 8, 8)[0] == 1


def test_a_paid_step_whose_token_is_hopeless_is_not_verified_where_that_costs() -> None:
    times = RoundTimes.of_chains(0.01, {1: 1.0, 2: 2.0, 8: 8.0})
    rule = CalibratedAdaEDL(times, 8)
    rule.begins(LOGITS, POLICY, nats(0.95))
    assert rule.stops(LOGITS, POLICY, nats(0.0))
    rule.begins(LOGITS, POLICY, nats(0.95))
    assert not CalibratedAdaEDL(CHEAP, 8).stops(LOGITS, POLICY, nats(0.0))


def test_a_cheap_second_half_of_a_block_is_looked_for_behind_a_dear_first_token() -> None:
    """A padded graph makes the second token dear to verify, and the next three free."""
    blocks = {1: 1.0, 2: 1.5, 5: 1.5}
    jump = RoundTimes({n: BlockTime(n, n, 0.01 * n, v) for n, v in blocks.items()})
    alone = RoundTimes({n: BlockTime(n, n, 0.01 * n, v) for n, v in {1: 1.0, 2: 2.0}.items()})
    assert drafted(CalibratedAdaEDL(jump, 5), [0.85] * 5, 5) == (5, 5)
    assert drafted(CalibratedAdaEDL(alone, 2), [0.85] * 2, 2)[0] == 1


def test_only_positions_that_verification_reached_count() -> None:
    rule = CalibratedAdaEDL(CHEAP, 4)
    assert drafted(rule, [0.95, 0.65, 0.95, 0.95], 4) == (4, 4)
    before = rule.state()
    rule.learn(4, 1, 4)  # the first is kept, the second is rejected, two were not looked at
    after = rule.state()
    reached = [b - a for a, b in zip(before[14:26], after[14:26], strict=True)]
    assert reached[0] == pytest.approx(1.0, abs=0.01)
    assert reached[3] == pytest.approx(1.0, abs=0.01)
    assert sum(reached) == pytest.approx(2.0, abs=0.02)


def test_the_rate_is_of_tokens_over_modelled_time() -> None:
    rule = CalibratedAdaEDL(CHEAP, 4)
    drafted(rule, [0.95] * 4, 4)
    rule.learn(4, 2, 4)
    tokens, time = rule.state()[:2]
    assert tokens == pytest.approx(0.998 * 8 + 3)
    assert time == pytest.approx(0.998 * 8 + CHEAP.between(4, 4))
    rule.learn(0, 0, 4)  # nothing was drafted, nothing is learnt
    assert rule.state()[:2] == [tokens, time]


@pytest.mark.parametrize("c", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("is_informed", [False, True])
def test_it_is_about_as_fast_as_the_best_fixed_length_and_faster_where_entropy_informs(
    c: float, is_informed: bool
) -> None:
    """Tokens are kept with probability 0.5 or 0.9; the guess shows which, or shows nothing."""
    times = RoundTimes.of_chains(c, {1: 1.05, 2: 1.1, 4: 1.2, 8: 1.4})
    rule, generator = CalibratedAdaEDL(times, 8), random.Random(0)
    tokens = time = 0.0
    for turn in range(3000):
        alphas = [generator.choice((0.5, 0.9)) for _ in range(8)]
        guesses = [alpha - 0.25 if is_informed else 0.65 for alpha in alphas]
        length, steps = drafted(rule, guesses, 8)
        accepted = 0
        while accepted < length and generator.random() < alphas[accepted]:
            accepted += 1
        rule.learn(length, accepted, 8)
        if turn >= 500:
            tokens, time = tokens + accepted + 1, time + times.between(steps, length)
    fixed = (sum(0.7**i for i in range(n + 1)) / times.between(n, n) for n in range(1, 9))
    share = tokens / time / max(fixed)
    # A step of 0.4 is too dear for entropy to help: it is paid before the entropy is known.
    assert share > (1.02 if is_informed and c < 0.4 else 0.97)


def test_what_it_has_learnt_outlives_a_process() -> None:
    rule, other = CalibratedAdaEDL(CHEAP, 4), CalibratedAdaEDL(CHEAP, 4)
    for accepted in (4, 1, 0):
        drafted(rule, [0.95, 0.65, 0.35, 0.95], 4)
        rule.learn(4, accepted, 4)
    other.restore(rule.state())
    assert other.state() == rule.state()


class Noting(CalibratedAdaEDL):
    """It keeps the lengths of its drafts."""

    def __init__(self, times: RoundTimes, gamma: int, lengths: set[int]) -> None:
        super().__init__(times, gamma)
        self._lengths = lengths

    def learn(self, length: int, accepted: int, gamma: int) -> None:
        super().learn(length, accepted, gamma)
        self._lengths.add(length)


@pytest.mark.parametrize("c", [0.1, 0.2])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_distribution_of_the_output_is_the_targets_while_the_rule_learns(
    c: float, temperature: float
) -> None:
    """Every branch begins with a new rule, and what that has learnt is a part of its state."""
    pair, policy = random_pair(3, seed=1), SamplingPolicy(temperature)
    times = RoundTimes.of_chains(c, {1: 1.05, 3: 1.2})
    rules: list[Noting] = []
    lengths: set[int] = set()

    def stream(random_source: Branches) -> Iterator[Round]:
        rules[:] = [Noting(times, 3, lengths)]
        settings = standard(3, stop=rules[0])
        decoder = SpeculativeDecoder(pair.target, pair.draft, settings, policy, random_source)
        return decoder.rounds(torch.tensor(PROMPT), max_new_tokens=3)

    distribution = distribution_by_rounds(
        stream, lambda: (pair.state(), tuple(rules[0].state()), rules[0]._was_whole)
    )
    targets = autoregressive_distribution(pair.target, policy, PROMPT, 3)
    assert sum(distribution.values()) == pytest.approx(1.0, abs=1e-12)
    assert total_variation(distribution, targets) < 1e-9
    # Else no case would be about blocks of different lengths.
    assert len(lengths) >= 2 or (temperature, c) != (1.0, 0.1)

"""Stopping by costs: against decisions by hand, the best fixed length, and exact enumeration."""

from __future__ import annotations

import random

import pytest
import torch

from distillspec.speculation.decoding.engine import Configuration
from distillspec.speculation.draft.calibrated import CalibratedAdaEDL
from distillspec.speculation.round_times import BlockTime, RoundTimes
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.decoding.test_engine import distance_from_the_target, random_pair, standard

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


class Forgetful(CalibratedAdaEDL):
    """It learns nothing, so that no state passes between the branches of an enumeration."""

    def learn(self, length: int, accepted: int, gamma: int) -> None:
        """Nothing."""


@pytest.mark.parametrize("c", [0.02, 0.25, 0.5])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_distribution_of_the_output_is_the_targets(c: float, temperature: float) -> None:
    rule = Forgetful(RoundTimes.of_chains(c, {1: 1.05, 3: 1.2}), 3)
    settings: Configuration = standard(3, stop=rule)
    policy = SamplingPolicy(temperature)
    assert distance_from_the_target(random_pair(3), settings, policy, 3) < 1e-9


def test_over_the_enumerated_texts_it_stops_at_different_lengths() -> None:
    """Else the proof above would be of a fixed length."""
    lengths = set()

    class Noting(Forgetful):
        def stops_after(
            self, logits: torch.Tensor, token: torch.Tensor, policy: SamplingPolicy
        ) -> bool:
            stops = super().stops_after(logits, token, policy)
            if stops:
                lengths.add(len(self._seen))
            return stops

    rule = Noting(RoundTimes.of_chains(0.25, {1: 1.05, 3: 1.2}), 3)
    distance_from_the_target(random_pair(3), standard(3, stop=rule), POLICY, 3)
    assert len(lengths) >= 2

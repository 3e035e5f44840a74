"""Isolated steps: of runners whose cost is known, the ratios are found again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillspec.methods.build import configuration
from distillspec.methods.measure_steps import measure_steps
from distillspec.methods.step_times import StepTimes
from distillspec.recipe.methods import MethodConfig
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.bigram import BigramRunner


class Clock:
    """Time that passes only where a model adds it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowBigram(BigramRunner):
    """A bigram model that takes its time: so much a forward, and so much more a token."""

    def __init__(self, clock: Clock, a_forward: float, a_token: float = 0.0) -> None:
        super().__init__(torch.zeros(4, 4))
        self._clock, self._a_forward, self._a_token = clock, a_forward, a_token
        self.fed: list[int] = []

    def feed(self, tokens: Tensor) -> Tensor:
        self.fed.append(tokens.shape[1])
        self._clock.now += self._a_forward + self._a_token * tokens.shape[1]
        return super().feed(tokens)


def measured(
    clock: Clock, target: SlowBigram, drafts: dict[str, SlowBigram], rounds: int = 4
) -> StepTimes:
    return measure_steps(
        target,
        drafts,
        [configuration(MethodConfig(), gamma) for gamma in (1, 4)],
        torch.tensor([1, 2, 3]),
        policy=SamplingPolicy(1.0),
        random_source=GeneratorSource(torch.Generator().manual_seed(0)),
        rounds=rounds,
        clock=clock,
    )


def test_cost_ratios_are_found_again() -> None:
    clock = Clock()
    drafts = {"slow": SlowBigram(clock, 2.0), "fast": SlowBigram(clock, 0.5)}
    times = measured(clock, SlowBigram(clock, 1.0, 1.0), drafts)
    assert times.target_seconds == pytest.approx(2.0)
    assert times.verify_time(1) == pytest.approx(1.5)
    assert times.verify_time(4) == pytest.approx(3.0)
    for gamma in (1, 4):
        assert times.draft_to_target_time("slow", gamma) == pytest.approx(1.0)
        assert times.draft_to_target_time("fast", gamma) == pytest.approx(0.25)
    assert times.verify_times().keys() == {1, 4}
    assert times.samples == 4
    assert times.spread == pytest.approx(0.0, abs=1e-9)


def test_a_machine_that_is_not_quiet_shows_in_the_spread() -> None:
    clock = Clock()

    class Restless(SlowBigram):
        def feed(self, tokens: Tensor) -> Tensor:
            self._a_forward = 1.0 + len(self.fed) % 3
            return super().feed(tokens)

    times = measured(clock, Restless(clock, 1.0), {"draft": SlowBigram(clock, 1.0)}, rounds=12)
    assert times.spread > 0.5


def test_nothing_is_decoded_each_step_starts_from_the_same_text() -> None:
    clock = Clock()
    target, draft = SlowBigram(clock, 1.0), SlowBigram(clock, 1.0)
    measured(clock, target, {"draft": draft})
    assert target.tokens.tolist() == draft.tokens.tolist() == [[1, 2]]


def test_every_kind_of_step_is_timed_equally_often_warm_up_apart() -> None:
    clock = Clock()
    target, draft = SlowBigram(clock, 1.0), SlowBigram(clock, 1.0)
    measured(clock, target, {"draft": draft}, rounds=5)
    blocks = target.fed[1:]
    # One untimed round before each, for the caches, and one whose draft has two tokens to read.
    assert blocks.count(2) == blocks.count(5) == 3 * (3 + 5)
    assert draft.fed[1:].count(2) == 2 * (3 + 5)


def test_steps_are_timed_in_the_company_they_have_when_decoding() -> None:
    """A draft that is slow right after the target ran, and a target slow right after the draft."""
    clock = Clock()
    last: list[object] = []

    class Jealous(SlowBigram):
        def feed(self, tokens: Tensor) -> Tensor:
            if last and last[-1] is not self:
                self._clock.now += 1.0
            last.append(self)
            return super().feed(tokens)

    times = measured(clock, Jealous(clock, 1.0), {"draft": Jealous(clock, 1.0)})
    assert times.target_seconds == pytest.approx(1.0)
    assert times.verify_time(1) == times.verify_time(4) == pytest.approx(2.0)
    # The first step of a draft is slow, and no further one.
    assert times.draft_seconds["draft"] == {1: pytest.approx(2.0), 4: pytest.approx(5.0)}
    assert times.round_times("draft").at(1) == pytest.approx(4.0)


def test_a_second_token_to_read_is_timed_and_asked_for_by_share() -> None:
    clock = Clock()
    times = measured(clock, SlowBigram(clock, 1.0), {"draft": SlowBigram(clock, 0.5, 0.25)})
    assert times.unread_seconds == {"draft": pytest.approx(0.25)}
    assert times.round_times("draft").at(4, whole=0.5) == pytest.approx(4 * 0.75 + 0.125 + 1.0)


def test_what_the_engine_does_apart_from_forwards_is_in_the_verification() -> None:
    clock = Clock()

    class Slow(SamplingPolicy):
        def distribution(self, logits: Tensor) -> Tensor:
            clock.now += 1.0
            return super().distribution(logits)

    times = measure_steps(
        SlowBigram(clock, 2.0),
        {"draft": SlowBigram(clock, 1.0)},
        [configuration(MethodConfig(), 3)],
        torch.tensor([1, 2, 3]),
        policy=Slow(0.0),
        random_source=GeneratorSource(torch.Generator()),
        rounds=3,
        clock=clock,
    )
    assert times.verify_seconds == {3: pytest.approx(3.0)}
    assert times.draft_seconds == {"draft": {3: pytest.approx(3.0)}}


def test_a_prompt_of_one_token_needs_no_prefill() -> None:
    times = measure_steps(
        BigramRunner(torch.zeros(4, 4)),
        {"draft": BigramRunner(torch.zeros(4, 4))},
        [configuration(MethodConfig(), 2)],
        torch.tensor([1]),
        policy=SamplingPolicy(0.0),
        random_source=GeneratorSource(torch.Generator()),
        rounds=2,
    )
    assert times.temperature == 0.0
    assert times.spread >= 0.0


@pytest.mark.parametrize("count", [1, 2])
def test_a_stop_rule_is_timed_at_full_length_and_at_the_halves_of_it(count: int) -> None:
    """Over a flat distribution confidence stops at once; a step and a token of the target cost a
    second.
    """
    clock = Clock()
    draft = {"kind": "sequences", "count": count} if count > 1 else {"kind": "chain"}
    verify = {"kind": "kseq" if count > 1 else "token"}
    method = MethodConfig.model_validate(
        {"name": "sure", "draft": draft, "stop": {"kind": "confidence"}, "verify": verify}
    )
    target, draft = SlowBigram(clock, 1.0, 1.0), SlowBigram(clock, 0.5)
    times = measure_steps(
        target,
        {"draft": draft},
        [configuration(method, 4)],
        torch.tensor([1, 2, 3]),
        policy=SamplingPolicy(1.0),
        random_source=GeneratorSource(torch.Generator().manual_seed(0)),
        rounds=5,
        clock=clock,
    )
    assert times.drafted == {1: count, 2: 2 * count, 4: 4 * count}
    assert times.draft_to_target_time("draft", 4) == pytest.approx(0.25)
    if count == 1:
        assert times.verify_time(4) == pytest.approx(3.0)
        assert times.round_times("draft").between(3.0, 3.0) == pytest.approx(0.75 + 2.5)
    assert target.tokens.tolist() == draft.tokens.tolist() == [[1, 2]]


def test_a_rule_that_will_follow_the_times_is_timed_before_they_are_known() -> None:
    clock = Clock()
    adaedl = MethodConfig.model_validate({"name": "adaedl", "stop": {"kind": "adaedl"}})
    assert adaedl.follows_costs
    times = measure_steps(
        SlowBigram(clock, 1.0, 1.0),
        {"draft": SlowBigram(clock, 0.5)},
        [configuration(adaedl, 6)],
        torch.tensor([1, 2, 3]),
        policy=SamplingPolicy(1.0),
        random_source=GeneratorSource(torch.Generator().manual_seed(0)),
        rounds=3,
        clock=clock,
    )
    assert times.drafted == times.steps == {1: 1, 3: 3, 6: 6}
    assert times.draft_seconds["draft"] == {n: pytest.approx(0.5 * n) for n in (1, 3, 6)}


@pytest.mark.parametrize("prompt", [[1, 2, 3], [1, 2, 1]], ids=["no match", "a match"])
def test_a_lookup_takes_no_step_of_a_draft_and_its_search_is_counted_all_the_same(
    prompt: list[int],
) -> None:
    clock = Clock()

    class Counted(SamplingPolicy):
        """Forming the target distribution takes a second: a part of a round without a forward."""

        def distribution(self, logits: Tensor) -> Tensor:
            clock.now += 1.0
            return super().distribution(logits)

    draft = SlowBigram(clock, 5.0)
    lookup = MethodConfig.model_validate({"name": "lookup", "draft": {"kind": "lookup"}})
    times = measure_steps(
        SlowBigram(clock, 2.0),
        {"draft": draft},
        [configuration(lookup, 4)],
        torch.tensor(prompt),
        policy=Counted(0.0),
        random_source=GeneratorSource(torch.Generator()),
        rounds=3,
        clock=clock,
    )
    assert times.draft_seconds == {"draft": dict.fromkeys((1, 2, 4), 0.0)}
    assert times.verify_seconds == dict.fromkeys((1, 2, 4), pytest.approx(3.0))
    assert times.draft_to_target_time("draft", 4) == times.spread == 0.0
    assert draft.fed == [2]  # the prompt
    assert times.drafted == {1: 1, 2: 2, 4: 4}
    assert set(times.steps.values()) == {0}

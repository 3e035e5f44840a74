"""Isolated step times of a pair: what the cost model predicts from. Never from the timed loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from torch import Tensor

from distillspec.speculation.chance import Chance
from distillspec.speculation.configuration import Configuration
from distillspec.speculation.draft.proposal import Proposal
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

Clock = Callable[[], float]
"""Seconds since some moment."""

_WARM_UP = 3
ROUNDS = 30


@dataclass(frozen=True)
class StepTimes:
    """Medians in seconds, at one temperature.

    target_seconds: a one-token forward of the target, drawing its token included.
    verify_seconds[gamma]: a target forward over gamma + 1 tokens, its verification included.
    draft_seconds[draft]: one step of the draft, drawing its token and the stop rule included.
    samples: rounds the medians are over. spread: distance between the quartiles of a kind of step,
    as a share of its median, the largest of all kinds: near 0 on a quiet machine.
    """

    temperature: float
    target_seconds: float
    verify_seconds: dict[int, float]
    draft_seconds: dict[str, float]
    samples: int
    spread: float

    def draft_to_target_time(self, draft: str) -> float:
        """c: one draft step over a one-token target step."""
        return self.draft_seconds[draft] / self.target_seconds

    def verify_time(self, gamma: int) -> float:
        """v: verifying gamma drafted tokens over a one-token target step."""
        return self.verify_seconds[gamma] / self.target_seconds

    def verify_times(self) -> dict[int, float]:
        return {gamma: self.verify_time(gamma) for gamma in self.verify_seconds}


def measure_steps(
    target: Runner,
    drafts: Mapping[str, Runner],
    configurations: Sequence[Configuration],
    prompt: Tensor,
    *,
    policy: SamplingPolicy,
    chance: Chance,
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
) -> StepTimes:
    """Time every kind of step after `prompt` (long [T], T >= 1), one method at its block sizes.

    In each round every kind is timed once, in an order that rotates, so that drift and the state of
    the processor's caches meet all kinds alike; the first rounds are thrown away. Nothing is
    decoded: each step starts from the same text.
    """
    bench = _Bench(target, drafts, prompt, policy, chance, clock)
    kinds: list[tuple[str, int, Callable[[], float]]] = [("", 0, bench.target_step)]
    for one in configurations:
        kinds.append(("", one.gamma, bench.verification(one, next(iter(drafts.values())))))
        kinds += [(name, one.gamma, bench.drafting(one, drafts[name])) for name in drafts]
    samples: dict[tuple[str, int], list[float]] = {(name, gamma): [] for name, gamma, _ in kinds}
    for round_ in range(-_WARM_UP, rounds):
        turn = round_ % len(kinds)
        for name, gamma, step in kinds[turn:] + kinds[:turn]:
            seconds = step()
            if round_ >= 0:
                samples[name, gamma].append(seconds)
    gammas = [one.gamma for one in configurations]
    return StepTimes(
        temperature=policy.temperature,
        target_seconds=median(samples["", 0]),
        verify_seconds={gamma: median(samples["", gamma]) for gamma in gammas},
        draft_seconds={
            name: median(
                sum(at_one_round) / len(gammas)
                for at_one_round in zip(*(samples[name, gamma] for gamma in gammas), strict=True)
            )
            for name in drafts
        },
        samples=rounds,
        spread=max(_spread(seconds) for seconds in samples.values()),
    )


def _spread(seconds: Sequence[float]) -> float:
    lower, middle, upper = quantiles(seconds, n=4)
    return (upper - lower) / middle


class _Bench:
    """Every runner holds prompt[:-1]; each step is taken from there, timed, and taken back."""

    def __init__(
        self,
        target: Runner,
        drafts: Mapping[str, Runner],
        prompt: Tensor,
        policy: SamplingPolicy,
        chance: Chance,
        clock: Clock,
    ) -> None:
        self._target, self._policy, self._chance = target, policy, chance
        self._clock = clock
        self._last = prompt[-1:]
        self._held = len(prompt) - 1
        for runner in (target, *drafts.values()):
            runner.reset()
            if self._held:
                runner.feed(prompt[:-1].unsqueeze(0))

    def target_step(self) -> float:
        with torch.no_grad():
            self._target.synchronize()
            started = self._clock()
            logits = self._target.feed(self._last.view(1, 1))[0, -1]
            self._chance.draw(self._policy.distribution(logits))
            self._target.synchronize()
            seconds = self._clock() - started
        self._target.rollback(self._held)
        return seconds

    def drafting(self, one: Configuration, draft: Runner) -> Callable[[], float]:
        """Seconds per draft step, within a whole block."""

        def step() -> float:
            draft.synchronize()
            started = self._clock()
            proposal = self._propose(one, draft)
            draft.synchronize()
            seconds = self._clock() - started
            draft.rollback(self._held)
            return seconds / proposal.steps

        return step

    def verification(self, one: Configuration, draft: Runner) -> Callable[[], float]:
        """Seconds of the target's part of a round; the proposal is made outside the clock."""

        def step() -> float:
            proposal = self._propose(one, draft)
            draft.rollback(self._held)
            self._target.synchronize()
            started = self._clock()
            block = torch.cat([self._last, proposal.tokens]).unsqueeze(0)
            p = self._policy.distribution(self._target.feed(block)[0])
            one.verify(p, proposal.q, proposal.tokens, self._chance)
            self._target.rollback(self._held)
            self._target.synchronize()
            return self._clock() - started

        return step

    def _propose(self, one: Configuration, draft: Runner) -> Proposal:
        return one.draft.propose(draft, self._last, one.gamma, self._policy, self._chance, one.stop)

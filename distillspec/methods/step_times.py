"""Isolated step times of a pair: what the cost model predicts from. Never from the timed loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.methods import cost_model
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.draft.chain import Chain
from distillspec.speculation.draft.proposal import DraftContext, Proposal
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.runner import PieceReader, Runner
from distillspec.speculation.sampling import SamplingPolicy

Clock = Callable[[], float]
"""Seconds since some moment."""

_WARM_UP = 3
ROUNDS = 30


@dataclass(frozen=True)
class StepTimes:
    """Medians in seconds, at one temperature.

    target_seconds: a one-token forward of the target, drawing its token included.
    verify_seconds[gamma]: a target forward over a block as long as that gamma allows, which is of
    drafted[gamma] tokens and the one before them, its verification included.
    draft_seconds[draft]: one step of the draft, drawing its token and the stop rule included; 0 for
    a method that drafts without a model, whose search is in verify_seconds.
    samples: rounds the medians are over. spread: distance between the quartiles of a kind of step,
    as a share of its median, the largest of all kinds: near 0 on a quiet machine.
    """

    temperature: float
    target_seconds: float
    verify_seconds: dict[int, float]
    drafted: dict[int, int]
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

    def verify_time_of(self, drafted: float) -> float:
        """v of rounds that drafted so many tokens on average: stop rules and lookups draft less."""
        known = {self.drafted[gamma]: self.verify_time(gamma) for gamma in self.verify_seconds}
        return cost_model.verify_time_between(known, drafted)


def middle_prompt(
    prompts: Iterable[Sequence[int]], drafts: Collection[Runner], slots: int
) -> Sequence[int]:
    """The one of middle length to time steps after, of those that leave drafts so many places.

    DistillSpecError if there is none: a draft with a tokenizer of its own may be able to read none.
    """
    fitting = [prompt for prompt in prompts if has_room(prompt, drafts, slots)]
    if not fitting:
        raise DistillSpecError(
            f"no prompt leaves the draft {slots} places for a block, in its own tokens",
            where="timing steps of a draft of another tokenizer",
            fix="give shorter prompts, or take a draft with a longer context",
        )
    return sorted(fitting, key=len)[len(fitting) // 2]


def has_room(prompt: Sequence[int], drafts: Iterable[Runner], slots: int) -> bool:
    """Whether those that read pieces have so many places left after the prompt; they are emptied.

    All others have: decoding checks it for the prompt and all that follows.
    """
    for draft in drafts:
        if isinstance(draft, PieceReader):
            draft.reset()
            if min(draft.room_after(prompt)) < slots:
                return False
    return True


def measure_steps(
    target: Runner,
    drafts: Mapping[str, Runner],
    configurations: Sequence[Configuration],
    prompt: Tensor,
    *,
    policy: SamplingPolicy,
    chance: RandomSource,
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
) -> StepTimes:
    """Time every kind of step after `prompt` (long [T], T >= 1), one method at its block sizes.

    Nothing is decoded: each step starts from the same text. But each is timed in the company it
    has when decoding, which decides what the processor's caches hold: a one-token target step
    after another, a draft's block after a verification, a verification after a draft's block. The
    kinds take turns in an order that rotates, so that drift meets all alike; the first rounds are
    thrown away. A block that a stop rule or a lookup left short is filled up before it is verified:
    how long they draft after this one text says nothing of others.
    """
    bench = _Bench(target, drafts, prompt, policy, chance, clock)
    kinds = [(one, name) for one in configurations for name in drafts]
    alone: list[float] = []
    drafting: dict[tuple[int, str], list[float]] = {(one.gamma, name): [] for one, name in kinds}
    verifying: dict[int, list[float]] = {one.gamma: [] for one in configurations}
    lengths: dict[int, list[int]] = {one.gamma: [] for one in configurations}
    for round_ in range(-_WARM_UP, rounds):
        is_counted = round_ >= 0
        bench.target_step()
        seconds = bench.target_step()
        if is_counted:
            alone.append(seconds)
        turn = round_ % len(kinds)
        for one, name in kinds[turn:] + kinds[:turn]:
            draft_seconds, verify_seconds, length = bench.round(one, drafts[name])
            if is_counted:
                lengths[one.gamma].append(length)
                drafting[one.gamma, name].append(draft_seconds)
                verifying[one.gamma].append(verify_seconds)
    gammas = [one.gamma for one in configurations]
    return StepTimes(
        temperature=policy.temperature,
        target_seconds=median(alone),
        verify_seconds={gamma: median(verifying[gamma]) for gamma in gammas},
        drafted={gamma: round(median(lengths[gamma])) for gamma in gammas},
        draft_seconds={
            name: median(
                sum(at_one_round) / len(gammas)
                for at_one_round in zip(*(drafting[gamma, name] for gamma in gammas), strict=True)
            )
            for name in drafts
        },
        samples=rounds,
        spread=max(_spread(times) for times in (alone, *drafting.values(), *verifying.values())),
    )


def _spread(seconds: Sequence[float]) -> float:
    lower, middle, upper = quantiles(seconds, n=4)
    return (upper - lower) / middle if middle else 0.0  # no time at all: drafted without a step


class _Bench:
    """Every runner holds prompt[:-1]; each step is taken from there, timed, and taken back."""

    def __init__(
        self,
        target: Runner,
        drafts: Mapping[str, Runner],
        prompt: Tensor,
        policy: SamplingPolicy,
        chance: RandomSource,
        clock: Clock,
    ) -> None:
        self._target, self._policy, self._chance = target, policy, chance
        self._clock = clock
        self._text = prompt.tolist()
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
            self._policy.draw(logits, self._chance)
            self._target.synchronize()
            seconds = self._clock() - started
        self._target.rollback(self._held)
        return seconds

    def round(self, one: Configuration, draft: Runner) -> tuple[float, float, int]:
        """Seconds per draft step, and of the rest: the target's part of the round; tokens drafted.

        What drafts without a step of a model has all of its time in the rest.
        """
        draft.synchronize()
        started = self._clock()
        basis = DraftContext(
            text=self._text,
            head=self._last,
            model=draft,
            vocab_size=self._target.vocab_size,
            policy=self._policy,
            chance=self._chance,
            stop=one.stop,
        )
        proposal = one.draft.propose(basis, one.gamma)
        draft.synchronize()
        drafting = self._clock() - started
        steps = proposal.steps
        proposal = self._whole(one, basis, proposal)
        draft.synchronize()
        drafted = self._clock()
        p = self._policy.distribution(proposal.score(self._target, self._last))
        verdict = proposal.verify(one.verify, p, self._chance)
        proposal.commit(self._target, draft, self._held + 1, verdict)
        self._target.synchronize()
        verifying = self._clock() - drafted
        self._target.rollback(self._held)
        draft.rollback(self._held)
        if steps == 0:
            return 0.0, drafting + verifying, proposal.drafted
        return drafting / steps, verifying, proposal.drafted

    def _whole(self, one: Configuration, basis: DraftContext, proposal: Proposal) -> Proposal:
        """The proposal, or one as long as gamma allows in its place."""
        if proposal.drafted == one.draft.slots(one.gamma):
            return proposal
        if proposal.steps:
            basis.runner.rollback(self._held)
            return one.draft.propose(replace(basis, stop=FixedLength()), one.gamma)
        return Chain.certain(basis, [self._text[-1]] * one.gamma)
